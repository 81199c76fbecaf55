import itertools
import json
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import pytest

from servery_runner import batch_proof, rows
from servery_runner.batch_proof import MOST_ROWS, Proof, prove
from servery_runner.rows import FORMATS, Rows

Table = list[list[Any]]


def split(columns: list[str], *data: list[Any]) -> Rows:
    found = rows.read(json.dumps({"dataframe_split": {"columns": columns, "data": list(data)}}).encode())
    assert found is not None
    return found


def example(*data: list[Any]) -> Rows:
    return split(["a", "b"], *data)


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
    def predict(table: Table) -> Any:
        if any(row[0] != "x" for row in table):
            raise ValueError("unheard of")
        return [len(row[0]) for row in table]

    proof = prove(model(predict), split(["a"], ["x"]))
    assert proof.formats == ()
    assert "one row" in proof.reason


def test_a_text_or_flag_that_cannot_be_varied_proves_nothing():
    def predict(table: Table) -> Any:
        if any(row[0] != "x" for row in table):
            raise ValueError("unheard of")
        return [row[1] for row in table]

    for shown in (split(["a", "b"], ["x", 1.5], ["x", 2.5]), split(["a", "b"], ["x", 1.5])):
        proof = prove(model(predict), shown)
        assert proof.formats == ()
        assert "could not be varied" in proof.reason


def test_a_model_that_knows_none_of_the_texts_that_were_made_up_is_not_proven():
    """It looks at the first row, which its example does not show."""

    def predict(table: Table) -> Any:
        if table[0][0] == "stop":
            raise ValueError("stopped")
        return ["fine" for _ in table]

    for shown in (split(["a"], ["go"]), split(["a"], ["go"], ["come"])):
        proof = prove(model(predict), shown)
        assert proof.formats == ()
        assert "the same" in proof.reason


BY_TEXT: dict[str, Callable[[Table], Any]] = {
    "padded to the longest": lambda table: [row[0].ljust(max(len(one[0]) for one in table)) for row in table],
    "categories": lambda table: [sorted({one[0] for one in table}).index(row[0]) for row in table],
    "any flag": lambda table: [any(one[1] for one in table) for _ in table],
    "all flags": lambda table: [all(one[1] for one in table) for _ in table],
}


@pytest.mark.parametrize("name", BY_TEXT)
@pytest.mark.parametrize(
    "shown", [[["one", True]], [["x", False]], [["a", True], ["b", True]], [["", False]]]
)
def test_texts_and_flags_are_varied(name: str, shown: Table):
    assert prove(model(BY_TEXT[name]), split(["a", "b"], *shown)).formats == ()
    by_row = prove(model(lambda table: [[len(row[0]), row[1]] for row in table]), split(["a", "b"], *shown))
    assert by_row.max_rows == MOST_ROWS


def test_texts_are_varied_first_so_that_slow_models_see_them_too():
    now = [0.0]

    def predict(table: Table) -> Any:
        now[0] += 1.0
        return BY_TEXT["padded to the longest"](table)

    shown = split(["a", "b"], ["xx", 1.5], ["yy", 2.5], ["zz", 3.5])
    assert prove(model(predict), shown, clock=lambda: now[0]).formats == ()
    assert now[0] < 10


def is_proven(proof: Proof, content: Any, floats: Collection[str] = ()) -> bool:
    found = rows.read(json.dumps(content).encode(), floats)
    return found is not None and proof.most(found) > 1


@pytest.mark.parametrize("shown", [TWO, ONE])
def test_the_usual_bodies_for_the_columns_of_the_example_are_of_proven_kinds(shown: Rows):
    proof = prove(model(lambda table: [a + b for a, b in table]), shown)
    data = [[7.5, 8.5]]
    for content in (
        {"dataframe_split": {"columns": ["a", "b"], "data": data}},
        {"dataframe_split": {"columns": ["a", "b"], "data": data, "index": [0]}},
        {"dataframe_records": [{"a": 7.5, "b": 8.5}]},
        {"instances": [{"a": 7.5, "b": 8.5}]},
        {"inputs": [{"a": 7.5, "b": 8.5}]},
        {"inputs": {"a": [7.5], "b": [8.5]}},
        {"instances": data},
        {"inputs": data},
    ):
        assert is_proven(proof, content), content


@pytest.mark.parametrize(
    "content",
    [
        {"dataframe_split": {"columns": ["a"], "data": [[7.5]]}},
        {"dataframe_split": {"columns": ["a", "c"], "data": [[7.5, 8.5]]}},
        {"dataframe_split": {"columns": ["a", "b"], "data": [["x", 8.5]]}},
        {"dataframe_split": {"data": [[7.5, 8.5]]}},
        {"dataframe_records": [{"a": 7.5}]},
        {"instances": [7.5, 8.5]},
        {"instances": [[7.5, 8.5, 9.5]]},
        {"inputs": [[[7.5, 8.5]]]},
        {"inputs": {"a": [[7.5]], "b": [[8.5]]}},
    ],
)
def test_bodies_of_kinds_that_were_not_tried_are_not(content: Any):
    assert not is_proven(prove(model(lambda table: [0 for _ in table]), TWO), content)


def test_columns_may_come_in_the_order_of_the_alphabet_too():
    def predict(body: bytes) -> tuple[int, str]:
        return 200, json.dumps({"predictions": [0 for _ in table_of(body)]})

    proof = prove(predict, split(["b", "c", "a"], [1.5, 2.5, 3.5]))
    assert is_proven(proof, {"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1.5, 2.5, 3.5]]}})
    assert is_proven(proof, {"dataframe_records": [{"a": 1.5, "b": 2.5, "c": 3.5}]})
    assert not is_proven(proof, {"dataframe_records": [{"c": 1.5, "b": 2.5, "a": 3.5}]})


def test_a_model_that_is_row_wise_in_one_format_only_is_joined_in_that():
    def score(body: bytes) -> tuple[int, str]:
        table, is_array = (
            table_of(body),
            not json.loads(body).keys() & {"dataframe_split", "dataframe_records"},
        )
        return 200, json.dumps({"predictions": [row[0] / (len(table) if is_array else 1) for row in table]})

    assert prove(score, TWO).formats == ("dataframe_split", "dataframe_records")


def test_numbers_of_both_kinds_are_proven_where_the_signature_makes_floats():
    read = partial(rows.read, floats={"a", "b"})
    proof = prove(model(lambda table: [a + b for a, b in table]), TWO, read)
    for pair in ([1, 2], [1.5, 2], [1.5, 2.5]):
        assert is_proven(proof, {"dataframe_split": {"columns": ["a", "b"], "data": [pair]}}, {"a", "b"})


def test_bodies_that_are_never_read_prove_nothing():
    proof = prove(model(lambda table: [0 for _ in table]), TWO, lambda body: rows.read(body, dates=True))
    assert proof.formats == ()
    assert "never joined" in proof.reason


def test_the_kinds_that_were_tried_do_not_multiply_the_predictions():
    asked = []
    score = model(lambda table: [a + b for a, b in table])

    def counting(body: bytes) -> tuple[int, str]:
        asked.append(len(body))
        return score(body)

    proof = prove(counting, split(["b", "a"], [1.5, 2.5], [2.5, 3.5], [4.5, 5.5]))
    assert proof.kinds is not None
    assert len(proof.kinds) == 10
    assert len(asked) < 120


def test_a_model_that_refuses_varied_rows_is_tried_with_those_of_its_example():
    known = ([1.5, 2.0], [0.5, 4.0])

    def predict(table: Table) -> Any:
        if any(row not in known for row in table):
            raise ValueError("never seen")
        return [row[0] for row in table]

    assert prove(model(predict), TWO).max_rows == MOST_ROWS


def test_a_very_slow_model_is_tried_with_few_rows_in_the_usual_forms():
    now = [0.0]

    def predict(table: Table) -> Any:
        now[0] += 1.0
        return [row[0] for row in table]

    proof = prove(model(predict), TWO, clock=lambda: now[0])
    assert set(proof.formats) == set(FORMATS)
    assert proof.max_rows == 2
    assert now[0] <= 21


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
    assert Proof.from_head(json.loads(json.dumps(batch_proof.FORCED.head()))) == batch_proof.FORCED


def test_a_proof_of_many_columns_fits_into_the_head_of_a_record():
    names = [f"a rather long name of a column, number {number}" for number in range(400)][::-1]
    proof = prove(
        model(lambda table: [row[0] for row in table]), split(names, [float(at) for at in range(400)])
    )
    assert proof.formats
    assert len(json.dumps(proof.head())) < 16 * 1024
