import json
import math
from typing import Any

import pytest

from servery_runner import rows
from servery_runner.rows import Rows


def split_body(*data: list[Any], columns: list[str] | None = None, **more: Any) -> bytes:
    names = columns if columns is not None else ["a", "b"][: len(data[0])] if data else []
    return json.dumps({"dataframe_split": {"columns": names, "data": list(data)}} | more).encode()


def split(*data: list[Any], index: list[Any]) -> bytes:
    return body("dataframe_split", {"columns": ["a"], "data": list(data), "index": index})


def body(name: str, content: Any, **more: Any) -> bytes:
    return json.dumps({name: content} | more).encode()


def kind(content: bytes, **known: Any) -> Any:
    found = rows.read(content, **known)
    return None if found is None else found.kind


def read(content: bytes, **known: Any) -> Rows:
    found = rows.read(content, **known)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("bodies", "joined"),
    [
        (
            [split_body([1.5, "x"]), split_body([2.5, "y"], [3.5, "z"])],
            split_body([1.5, "x"], [2.5, "y"], [3.5, "z"]),
        ),
        (
            [body("dataframe_records", [{"a": 1}]), body("dataframe_records", [{"a": 2}])],
            body("dataframe_records", [{"a": 1}, {"a": 2}]),
        ),
        (
            [body("instances", [[1.0, 2.0]]), body("instances", [[3.0, 4.0]])],
            body("instances", [[1.0, 2.0], [3.0, 4.0]]),
        ),
        (
            [body("instances", [{"a": [1]}]), body("instances", [{"a": [2]}])],
            body("instances", [{"a": [1]}, {"a": [2]}]),
        ),
        (
            [body("inputs", {"a": [1], "b": ["x"]}), body("inputs", {"a": [2], "b": ["y"]})],
            body("inputs", {"a": [1, 2], "b": ["x", "y"]}),
        ),
        ([body("inputs", ["x"]), body("inputs", ["y"])], body("inputs", ["x", "y"])),
        (
            [split([1], [2], index=[0, 1]), split([3], index=[0])],
            split([1], [2], [3], index=[0, 1, 2]),
        ),
        (
            [body("inputs", [1], params=None), body("inputs", [2], client_request_id="x")],
            body("inputs", [1, 2]),
        ),
    ],
)
def test_bodies_of_one_kind_are_joined_row_after_row(bodies: list[bytes], joined: bytes):
    parts = [read(one) for one in bodies]
    assert len({part.kind for part in parts}) == 1
    assert json.loads(rows.join(parts)) == json.loads(joined)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (split_body([1.5]), split_body([1])),
        (split_body([1]), split_body([True])),
        (split_body([1]), split_body(["1"])),
        (split_body([1], columns=["a"]), split_body([1], columns=["b"])),
        (split_body([1, 2], columns=["a", "b"]), split_body([1, 2], columns=["b", "a"])),
        (body("dataframe_records", [{"a": 1}]), body("dataframe_records", [{"b": 1}])),
        (body("inputs", [[1, 2]]), body("inputs", [[1, 2, 3]])),
        (body("inputs", [1]), body("instances", [1])),
        (split([1], index=[0]), split_body([1], columns=["a"])),
    ],
)
def test_bodies_whose_columns_could_change_their_type_are_of_two_kinds(one: bytes, other: bytes):
    assert kind(one) is not None
    assert kind(other) is not None
    assert kind(one) != kind(other)


def test_a_whole_number_is_a_float_where_the_signature_says_so():
    floats = frozenset({"a"})
    assert kind(split_body([1], columns=["a"]), floats=floats) == kind(
        split_body([1.5], columns=["a"]), floats=floats
    )
    assert kind(split_body([1], columns=["b"]), floats=floats) != kind(
        split_body([1.5], columns=["b"]), floats=floats
    )
    assert kind(split_body([2**53 + 1], columns=["a"]), floats=floats) != kind(
        split_body([1.5], columns=["a"]), floats=floats
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b"\xff",
        b'{"dataframe_split": 1}',
        b'{"dataframe_split": {"data": {"a": 1}}}',
        b'{"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}',
        b'{"dataframe_split": {"columns": ["a"], "data": [[1]], "other": 1}}',
        split_body([None]),
        split_body([[1]]),
        split_body([1], [1.5]),
        split_body([1], ["x"]),
        split_body([1, 2], columns=["a"]),
        split_body([2**63]),
        body("dataframe_split", {"columns": ["a"], "data": []}),
        split([1], index=["x"]),
        split([1], index=[1, 2]),
        split([1], index=[]),
        split([1], index=[7]),
        split([1], index=[False]),
        split([1], index=[0.0]),
        split([1], [2], index=[1, 0]),
        split_body([math.nan]),
        split_body([math.inf]),
        split_body([-math.inf]),
        b'{"inputs": [1e999]}',
        body("dataframe_records", [{"a": math.nan}]),
        body("inputs", [[1.0, math.nan]]),
        body("inputs", {"a": [[math.inf]]}),
        body("inputs", [1], params={}),
        body("inputs", [1], params={"t": 0.5}),
        b"\xef\xbb\xbf" + body("inputs", [1]),
        body("inputs", [1]).decode().encode("utf-16"),
        body("inputs", [1]).decode().encode("utf-16-le"),
        body("inputs", [1]).decode().encode("utf-32"),
        b'{"inputs": ["\xed\xa0\x80"]}',
        body("dataframe_records", {"a": 1}),
        body("dataframe_records", [1]),
        body("dataframe_records", [{}]),
        body("dataframe_records", [{"a": 1}, {"b": 1}]),
        body("inputs", 1),
        body("inputs", []),
        body("inputs", [[1, 2], [1]]),
        body("inputs", [[1, 2.5]]),
        body("inputs", {"a": 1}),
        body("inputs", {"a": [1], "b": [1, 2]}),
        body("inputs", {}),
        body("inputs", [1], instances=[1]),
        body("inputs", [1], stream=True),
        body("messages", [{"role": "user", "content": "x"}]),
        body("inputs", ["x" * rows.LONGEST_BODY]),
    ],
)
def test_what_could_be_read_differently_in_company_is_not_read(content: bytes):
    assert rows.read(content) is None


def test_dates_are_not_read_because_pandas_guesses_their_format_from_the_first():
    assert rows.read(split_body(["01/02/2026"]), dates=True) is None


@pytest.mark.parametrize("depth", [100, 500, 1000, 20_000])
@pytest.mark.parametrize("start", [b'{"dataframe_split": ', b'{"inputs": ', b'{"params": ', b""])
def test_however_deep_a_body_is_nested_reading_it_raises_nothing(start: bytes, depth: int):
    assert rows.read(start + b"[" * depth) is None
    closed = rows.read(start + b"[" * depth + b"1" + b"]" * depth + b"}")
    assert closed is None or (depth < 1000 and start == b'{"inputs": ')


def test_the_keys_of_the_server_change_nothing():
    assert read(body("inputs", [1], client_request_id="x")) == read(body("inputs", [1]))


def test_an_answer_is_cut_into_what_each_would_have_been():
    answer = json.dumps({"predictions": [0.1, {"a": None}, [1, "é"], float("nan")]})
    assert rows.split(answer, [1, 2, 1]) == [
        b'{"predictions": [0.1]}',
        b'{"predictions": [{"a": null}, [1, "\\u00e9"]]}',
        b'{"predictions": [NaN]}',
    ]


@pytest.mark.parametrize(
    "answer",
    ["[1, 2]", '{"predictions": [1]}', '{"predictions": {"0": 1}}', '{"predictions": [1, 2], "x": 1}'],
)
def test_an_answer_without_one_prediction_a_row_is_not_cut(answer: str):
    assert rows.split(answer, [1, 1]) is None
