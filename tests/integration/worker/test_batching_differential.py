"""Every body of every model, joined with the others of its kind: the answers are those it gets alone."""

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.integration.worker.sociable import MODELS, Sociable
from tests.models import estimators, zoo
from tests.models.zoo import IRIS_CLASSIFIER, ZOO, ZooModel

from servery_runner import batch_proof, loading, rows, runner
from servery_runner.batch_proof import FORCED, Proof
from servery_runner.rows import Rows
from servery_runner.scoring import JSON, Answer, Scorer

NO_ROWS, NOT_ONE_EACH, ONE_ROW = "no input example or signature", "one prediction a row", "has one row"
NOTHING_SHOWN = "answers all rows of its input example the same"
OFF = {
    "echo_chat": NO_ROWS,
    "echo_agent": NO_ROWS,
    "echo_responses": NO_ROWS,
    "completions": NO_ROWS,
    "embeddings": NO_ROWS,
    "describe_input": NO_ROWS,
    "nested_types": NO_ROWS,
    "next_day": "dates",
    "dict_output": NOT_ONE_EACH,
    "text_output": NOT_ONE_EACH,
    "named_tensors": NOT_ONE_EACH,
    "not_finite": NOT_ONE_EACH,
    "raises": NOTHING_SHOWN,
    "repeat_text": "its own code is sent text",
    "optional_columns": "its own code is sent text",
    "raises_mlflow": ONE_ROW,
    "not_serialisable": NOTHING_SHOWN,
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
    return proven(path)


def proven(path: Path) -> tuple[Scorer, Proof]:
    scorer = loading.load(str(path), ANSWER_BYTES)
    return scorer, runner.find_proof(scorer, {"batching": "auto", "model_path": str(path)})


def alone(scorer: Scorer, body: bytes) -> Answer:
    answer = scorer.answer(body, JSON)
    return answer._replace(timings={})


Members = list[tuple[Rows, Answer]]


def kinds(scorer: Scorer, bodies: list[bytes], proof: Proof) -> list[Members]:
    """The bodies that may be joined, by kind, each with the answer it gets alone."""
    found: dict[object, Members] = {}
    for body in bodies:
        part = scorer.read_rows(body)
        answer = alone(scorer, body)
        if part is not None and proof.most(part) > 1 and answer.status == 200:
            found.setdefault(part.kind, []).append((part, answer))
    return list(found.values())


def assert_equal_in_company(scorer: Scorer, company: Members) -> None:
    assert len(company) > 1
    answer = scorer.answer_together([part for part, _ in company])
    assert answer.status == 200, answer.body
    assert rows.split(answer.body.decode(), [part.length for part, _ in company]) == [
        alone.body for _, alone in company
    ]


def json_bodies(model: ZooModel) -> list[bytes]:
    return [body.content for body in model.bodies if body.content_type in (None, JSON)]


@pytest.mark.parametrize("by", ["force", "proof"])
@pytest.mark.parametrize("model", ROW_WISE, ids=lambda model: model.name)
def test_joined_answers_are_those_of_each_alone(model: ZooModel, by: str, directory: Path):
    scorer, proof = loaded(model, directory)
    if model.name == LAST_DIGITS and (by == "force" or not proof.formats):
        pytest.skip("its last digits depend on the number of rows here")
    joined = kinds(scorer, json_bodies(model), FORCED if by == "force" else proof)
    assert joined
    for members in joined:
        company = members * COPIES
        random.Random(model.name).shuffle(company)
        assert_equal_in_company(scorer, company)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_model_that_looks_beyond_a_row_for_some_bodies_answers_them_as_if_alone(
    model: Sociable, tmp_path: Path
):
    model.save(tmp_path / "model")
    scorer, proof = proven(tmp_path / "model")
    joined = kinds(scorer, list(model.bodies), proof)
    assert bool(joined) == model.joins, proof.reason
    for members in joined:
        for company in (members * COPIES, members[::-1] * COPIES):
            assert_equal_in_company(scorer, company)


COLUMNS = list(estimators.IRIS.columns)


@pytest.mark.parametrize("row", [[5.1, 3.5, 1.4, 0.2], [5, 3, 1, 0], [5, 3.5, 1, 0.2]], ids=str)
def test_the_usual_bodies_for_a_table_of_numbers_are_joined(row: list[Any], directory: Path):
    scorer, proof = loaded(IRIS_CLASSIFIER, directory)
    record = dict(zip(COLUMNS, row, strict=True))
    for content in (
        {"dataframe_split": {"columns": COLUMNS, "data": [row]}},
        {"dataframe_split": {"columns": COLUMNS, "data": [row], "index": [0]}},
        {
            "dataframe_split": {
                "columns": sorted(COLUMNS),
                "data": [[record[name] for name in sorted(COLUMNS)]],
            }
        },
        {"dataframe_records": [record]},
        {"dataframe_records": [{name: record[name] for name in sorted(COLUMNS)}]},
        {"instances": [record]},
        {"inputs": [record]},
        {"inputs": {name: [value] for name, value in record.items()}},
    ):
        part = scorer.read_rows(json.dumps(content).encode())
        assert part is not None
        assert proof.most(part) == batch_proof.MOST_ROWS, content


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
