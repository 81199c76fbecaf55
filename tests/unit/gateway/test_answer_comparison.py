import orjson
import pytest

from servery_gateway.answer_comparison import SHOWN, difference
from servery_gateway.http import Answer


def json_answer(value: object, status: int = 200) -> Answer:
    return Answer(status, orjson.dumps(value))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
        ([1.0, 0.3], [1.000009, 0.3]),
        ([1e-9], [2e-9]),
        ([1], [1.0]),
        ([None, True, "x"], [None, True, "x"]),
    ],
)
def test_the_same(one: object, other: object) -> None:
    assert difference(json_answer(one), json_answer(other)) is None


@pytest.mark.parametrize(
    ("one", "other", "kind", "where"),
    [
        ({"predictions": [1.0, 2.0]}, {"predictions": [1.0, 2.1]}, "number", "predictions[1]"),
        ([1.0], [1.00002], "number", "[0]"),
        # Labels are numbers, too: a tolerance would make neighbours of large ones equal.
        ([1_000_000], [1_000_001], "number", "[0]"),
        ([True], [1], "type", "[0]"),
        ([None], [0.0], "type", "[0]"),
        (["cat"], ["dog"], "value", "[0]"),
        ([True], [False], "value", "[0]"),
        ([1], [1, 2], "length", ""),
        ([{"a": 1}], [{"b": 1}], "keys", "[0]"),
    ],
)
def test_a_difference_is_found_where_it_is(one: object, other: object, kind: str, where: str) -> None:
    found = difference(json_answer(one), json_answer(other))
    assert found is not None
    assert (found.kind, found.where) == (kind, where)


def test_the_status_counts_before_the_body() -> None:
    found = difference(json_answer([1]), json_answer([1], status=400))
    assert found is not None
    assert (found.kind, found.values) == ("status", ("200", "400"))


def test_what_is_not_json_has_to_be_equal_to_the_byte() -> None:
    assert difference(Answer(200, b"a,b\n1"), Answer(200, b"a,b\n1")) is None
    found = difference(Answer(200, b"a,b\n1"), Answer(200, b"a,b\n2"))
    assert found is not None
    assert found.kind == "not_json"


def test_values_are_cut() -> None:
    found = difference(json_answer(["a" * 10_000]), json_answer(["b" * 10_000]))
    assert found is not None
    assert max(map(len, found.values)) == SHOWN


def test_deep_answers_do_not_exhaust_the_stack() -> None:
    one, other = (b"[" * 1000 + number + b"]" * 1000 for number in (b"1", b"2"))
    found = difference(Answer(200, one), Answer(200, other))
    assert found is not None
    assert found.kind == "number"
