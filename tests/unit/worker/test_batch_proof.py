import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from servery_runner import batch_proof, rows
from servery_runner.batch_proof import MOST_ROWS, Proof, prove
from servery_runner.rows import FORMATS, Rows

Table = list[list[Any]]


def example(*data: list[Any]) -> Rows:
    found = rows.read(json.dumps({"dataframe_split": {"columns": ["a", "b"], "data": list(data)}}).encode())
    assert found is not None
    return found


def table_of(body: bytes) -> Table:
    """The rows of any of the four formats, as a model would be given them."""
    content = json.loads(body)
    if "dataframe_split" in content:
        return content["dataframe_split"]["data"]
    if isinstance(content.get("inputs"), dict):
        return [list(row) for row in zip(*content["inputs"].values(), strict=True)]
    records = content.get("dataframe_records") or content.get("instances") or content.get("inputs")
    return [list(record.values()) if isinstance(record, dict) else record for record in records]


def model(predict: Callable[[Table], Any]) -> batch_proof.Score:
    def score(body: bytes) -> tuple[int, str]:
        try:
            return 200, json.dumps({"predictions": predict(table_of(body))})
        except (ValueError, TypeError) as error:
            return 400, str(error)

    return score


TWO = example([1.5, 2.0], [0.5, 4.0])
ONE = example([1.5, 2.0])


@pytest.mark.parametrize("shown", [TWO, ONE])
def test_a_model_that_looks_at_each_row_is_proven_in_all_formats(shown: Rows):
    proof = prove(model(lambda table: [a + b for a, b in table]), shown)
    assert set(proof.formats) == set(FORMATS)
    assert proof.formats[0] == shown.format
    assert proof.max_rows == MOST_ROWS


COUNT = itertools.count()

NOT_ROW_WISE: dict[str, Callable[[Table], Any]] = {
    "mean": lambda table: [row[0] - sum(one[0] for one in table) / len(table) for row in table],
    "rank": lambda table: [sorted(table).index(row) for row in table],
    "count": lambda table: [len(table) for _ in table],
    "row numbers": lambda table: [number for number, _ in enumerate(table)],
    "neighbours": lambda table: [table[max(0, at - 1)][0] for at in range(len(table))],
    "only long tables": lambda table: [row[0] + (1e-9 if len(table) > 100 else 0) for row in table],
    "state": lambda table: [next(COUNT) for _ in table],
    "one answer": lambda table: [sum(row[0] for row in table)],
    "no list": lambda table: {"sum": sum(row[0] for row in table)},
    "last digits": lambda table: [row[0] + len(table) * 1e-16 for row in table],
    "one row only": lambda table: [row[0] for row in table] if len(table) == 1 else 1 / 0,
}


@pytest.mark.parametrize("name", NOT_ROW_WISE)
@pytest.mark.parametrize("shown", [TWO, ONE])
def test_a_model_that_looks_at_more_than_the_row_is_not(name: str, shown: Rows):
    def predict(table: Table) -> Any:
        try:
            return NOT_ROW_WISE[name](table)
        except ZeroDivisionError as error:
            raise ValueError from error

    proof = prove(model(predict), shown)
    assert proof.formats == ()
    assert proof.reason


def test_a_model_whose_last_digits_change_is_told_from_one_that_looks_at_other_rows():
    proof = prove(model(lambda table: [row[0] * (1 + len(table) * 1e-13) for row in table]), TWO)
    assert proof.formats == ()
    assert "last digits" in proof.reason
    assert "last digits" not in prove(model(NOT_ROW_WISE["mean"]), TWO).reason


def test_a_model_without_rows_to_try_is_not():
    assert prove(model(lambda table: table), None).formats == ()


def test_one_row_that_cannot_be_varied_proves_nothing():
    words = rows.read(b'{"dataframe_split": {"columns": ["a"], "data": [["x"]]}}')
    proof = prove(model(lambda table: [len(row[0]) for row in table]), words)
    assert proof.formats == ()
    assert "one row" in proof.reason


def test_a_model_that_refuses_varied_rows_is_tried_with_those_of_its_example():
    known = ([1.5, 2.0], [0.5, 4.0])

    def predict(table: Table) -> Any:
        if any(row not in known for row in table):
            raise ValueError("never seen")
        return [row[0] for row in table]

    assert prove(model(predict), TWO).max_rows == MOST_ROWS


def test_a_slow_model_is_tried_up_to_what_there_is_time_for():
    now = [0.0]

    def predict(table: Table) -> Any:
        now[0] += 0.05 * len(table)
        return [row[0] for row in table]

    proof = prove(model(predict), TWO, clock=lambda: now[0])
    assert 2 <= proof.max_rows < MOST_ROWS
    assert now[0] < 3 * batch_proof.BUDGET_SECONDS


def test_a_proof_survives_its_way_through_the_worker():
    proof = prove(model(lambda table: [row[0] for row in table]), TWO, clock=time.monotonic)
    assert Proof.from_head(json.loads(json.dumps(proof.head()))) == proof
