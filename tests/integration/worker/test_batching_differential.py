"""Every body of every model of the zoo, joined with the others of its kind: the answers are those it gets alone."""

import random
from functools import cache
from pathlib import Path

import pytest
from tests.models import zoo
from tests.models.zoo import ZOO, ZooModel

from servery_runner import batch_proof, loading, rows
from servery_runner.batch_proof import FORCED, Proof
from servery_runner.rows import Rows
from servery_runner.scoring import JSON, Answer, Scorer

NO_ROWS, NOT_ONE_EACH, ONE_ROW = "no input example or signature", "one prediction a row", "has one row"
OFF = {
    "echo_chat": NO_ROWS,
    "echo_agent": NO_ROWS,
    "echo_responses": NO_ROWS,
    "completions": NO_ROWS,
    "embeddings": NO_ROWS,
    "describe_input": NO_ROWS,
    "nested_types": NO_ROWS,
    "dict_output": NOT_ONE_EACH,
    "text_output": NOT_ONE_EACH,
    "named_tensors": NOT_ONE_EACH,
    "not_finite": NOT_ONE_EACH,
    "raises": ONE_ROW,
    "raises_mlflow": ONE_ROW,
    "not_serialisable": ONE_ROW,
}
"""Models of the zoo whose requests are predicted one by one, and why."""
LAST_DIGITS = "tensor_regressor"
"""Whether its last digits depend on how many rows it gets is the processor's doing."""
ROW_WISE = [model for model in ZOO if model.name not in OFF]
COPIES = 3
"""Each body joins this often, so that it meets others, and itself, in different places."""


ANSWER_BYTES = 64 * 1024 * 1024


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


@cache
def loaded(model: ZooModel, directory: Path) -> tuple[Scorer, Proof]:
    path = directory / model.name
    zoo.save(model, path)
    scorer = loading.load(str(path), ANSWER_BYTES)
    example = batch_proof.example_of(scorer.model.metadata, str(path))
    return scorer, batch_proof.prove(scorer.score_json, example)


def alone(scorer: Scorer, body: bytes) -> Answer:
    answer = scorer.answer(body, JSON)
    return answer._replace(timings={})


def kinds(scorer: Scorer, model: ZooModel, formats: tuple[str, ...]) -> list[list[tuple[Rows, bytes]]]:
    """The bodies that may be joined, by kind, each with the answer it gets alone."""
    found: dict[object, list[tuple[Rows, bytes]]] = {}
    for body in model.bodies:
        part = scorer.read_rows(body.content) if body.content_type in (None, JSON) else None
        answer = alone(scorer, body.content)
        if part is not None and part.format in formats and answer.status == 200:
            found.setdefault(part.kind, []).append((part, answer.body))
    return list(found.values())


@pytest.mark.parametrize("model", ROW_WISE, ids=lambda model: model.name)
def test_joined_answers_are_those_of_each_alone(model: ZooModel, directory: Path):
    scorer, proof = loaded(model, directory)
    forced = model.name != LAST_DIGITS
    for members in kinds(scorer, model, FORCED.formats if forced else proof.formats):
        company = members * COPIES
        random.Random(model.name).shuffle(company)
        answer = scorer.answer_together([part for part, _ in company])
        assert answer.status == 200, answer.body
        assert rows.split(answer.body.decode(), [part.length for part, _ in company]) == [
            body for _, body in company
        ]


@pytest.mark.parametrize("model", ZOO, ids=lambda model: model.name)
def test_what_is_found_out_about_a_model_is_true(model: ZooModel, directory: Path):
    _, proof = loaded(model, directory)
    if model.name in OFF:
        assert proof.formats == ()
        assert OFF[model.name] in proof.reason
    elif model.name == LAST_DIGITS and not proof.formats:
        assert "last digits" in proof.reason
    else:
        assert proof.formats
