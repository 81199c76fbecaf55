"""Tables of numbers that are made without MLflow are the ones that MLflow makes."""

import json
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from pandas.testing import assert_frame_equal
from tests.models import zoo
from tests.models.zoo import IRIS_CLASSIFIER

from servery_runner import enforcement, loading, tables
from servery_runner.scoring import JSON, Scorer

SEED = 7
COLUMNS = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    path = tmp_path_factory.mktemp("iris") / "model"
    zoo.save(IRIS_CLASSIFIER, path)
    return loading.load(str(path), 64 * 2**20)


def bodies() -> list[bytes]:
    source = np.random.default_rng(SEED)
    made = []
    for _ in range(50):
        names = [str(name) for name in source.permutation(COLUMNS)]
        data = (source.normal(size=(int(source.integers(1, 6)), 4)) * 10.0 ** source.integers(-5, 9)).tolist()
        if source.random() < 0.5:
            data = [[int(value) if source.random() < 0.3 else value for value in row] for row in data]
        made.append({"dataframe_split": {"columns": names, "data": data}})
        made.append({"dataframe_records": [dict(zip(names, row, strict=True)) for row in data]})
    return [json.dumps(body).encode() for body in made]


def test_a_signature_of_doubles_is_read_without_mlflow_and_gives_the_same_tables(scorer: Scorer):
    assert scorer._tables is not None
    for body in bodies():
        part = scorer.read_rows(body)
        assert part is not None
        table = scorer._tables.of([part])
        assert table is not None
        assert_frame_equal(table.frame, scorer._decode(body), check_exact=True)
        order = list(table.frame.columns)
        assert table.conforms == (order == COLUMNS)


def test_the_answers_are_those_of_mlflow(scorer: Scorer, monkeypatch: pytest.MonkeyPatch):
    fast = [scorer.answer(body, JSON) for body in bodies()]
    monkeypatch.setattr(scorer, "_tables", None)
    slow = [scorer.answer(body, JSON) for body in bodies()]
    assert [answer[:3] for answer in fast] == [answer[:3] for answer in slow]


def test_row_numbers_reach_the_model(scorer: Scorer, monkeypatch: pytest.MonkeyPatch):
    seen: list[pd.DataFrame] = []

    def predict(data: pd.DataFrame, params: object = None) -> list[int]:
        seen.append(data)
        return [0] * len(data)

    monkeypatch.setattr(scorer.model, "predict", predict, raising=False)
    body = {"dataframe_split": {"columns": COLUMNS, "data": [[1.0, 2.0, 3.0, 4.0]], "index": [7]}}
    scorer.answer(json.dumps(body).encode(), JSON)
    assert list(seen[0].index) == [7]


def test_a_failure_is_told_as_mlflow_tells_it_and_the_model_is_asked_once(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def predict(data: pd.DataFrame, params: object = None) -> None:
        asked.append(len(data))
        raise RuntimeError("no weights")

    monkeypatch.setattr(scorer.model, "predict", predict, raising=False)
    fast = scorer.answer(bodies()[0], JSON)
    monkeypatch.setattr(scorer, "_tables", None)
    slow = scorer.answer(bodies()[0], JSON)
    assert len(asked) == 2
    assert fast.status == slow.status == 400
    for told in (fast, slow):
        assert "RuntimeError: no weights" in json.loads(told.body)["stack_trace"]
    assert json.loads(fast.body)["message"] == json.loads(slow.body)["message"]


@pytest.mark.parametrize(
    "signature",
    [
        None,
        ModelSignature(inputs=Schema([ColSpec("double")])),
        ModelSignature(inputs=Schema([ColSpec("double", "a"), ColSpec("long", "b")])),
        ModelSignature(inputs=Schema([ColSpec("float", "a")])),
    ],
    ids=["none", "no names", "whole numbers", "single precision"],
)
def test_other_signatures_are_left_to_mlflow(signature: ModelSignature | None):
    schema = None if signature is None else signature.inputs
    assert tables.of_signature(schema, lambda body: pytest.fail("not to be asked")) is None


def test_an_mlflow_that_makes_other_tables_is_left_to_itself():
    schema = Schema([ColSpec("double", "a")])
    assert tables.of_signature(schema, lambda body: pd.DataFrame({"a": [0.0]})) is None


class Seen:
    """Counts what MLflow converts to a signature."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        enforce = mlflow.pyfunc._enforce_schema

        def counted(*arguments: Any) -> Any:
            self.count += 1
            return enforce(*arguments)

        monkeypatch.setattr(mlflow.pyfunc, "_enforce_schema", counted)


def split_body(names: list[str]) -> bytes:
    return json.dumps({"dataframe_split": {"columns": names, "data": [[5.1, 3.5, 1.4, 0.2]]}}).encode()


def test_a_table_that_conforms_is_not_converted_again(scorer: Scorer, monkeypatch: pytest.MonkeyPatch):
    seen = Seen(monkeypatch)
    assert scorer.answer(split_body(COLUMNS), JSON).status == 200
    assert seen.count == 0


def test_a_table_in_another_order_is_converted(scorer: Scorer, monkeypatch: pytest.MonkeyPatch):
    seen = Seen(monkeypatch)
    assert scorer.answer(split_body(COLUMNS[::-1]), JSON).status == 200
    assert seen.count == 1


def test_a_model_that_hands_its_table_to_another_model_has_it_converted_for_that(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
):
    inner = scorer.model._predict_fn
    seen = Seen(monkeypatch)

    def predict(data: pd.DataFrame) -> Any:
        monkeypatch.setattr(scorer.model, "_predict_fn", inner)
        assert seen.count == 0
        return scorer.model.predict(data)

    monkeypatch.setattr(scorer.model, "_predict_fn", predict)
    assert scorer.answer(split_body(COLUMNS), JSON).status == 200
    assert seen.count == 1


def test_a_model_that_names_its_columns_leaves_no_trace(scorer: Scorer, monkeypatch: pytest.MonkeyPatch):
    names = []

    def predict(data: pd.DataFrame) -> list[int]:
        names.append(data.columns.name)
        data.columns.name = "mine"
        return [0] * len(data)

    monkeypatch.setattr(scorer.model, "_predict_fn", predict)
    for _ in range(2):
        assert scorer.answer(split_body(COLUMNS), JSON).status == 200
    assert names == [None, None]


def test_params_are_still_checked(scorer: Scorer, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []
    enforce = mlflow.pyfunc._enforce_params_schema
    monkeypatch.setattr(
        mlflow.pyfunc, "_enforce_params_schema", lambda *given: (asked.append(given[0]), enforce(*given))[1]
    )
    body = json.loads(split_body(COLUMNS)) | {"params": {"unknown": 1}}
    assert scorer.answer(json.dumps(body).encode(), JSON).status == 200
    assert asked == [{"unknown": 1}]


def test_an_mlflow_that_checks_in_another_way_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(enforcement, "_installed", None)
    monkeypatch.setattr(mlflow.pyfunc, "_validate_prediction_input", lambda data, schema: data)
    assert not enforcement.install()
