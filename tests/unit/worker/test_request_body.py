import json

import pytest

from servery_runner.request_body import read

JSON = "application/json"
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
OWN = {"client_request_id": "a", "usage_context": {"k": "v"}, "databricks_options": {"return_trace": True}}


def understood(content: object, declared: frozenset[str] | None = None) -> tuple[object, bool]:
    result = read(json.dumps(content).encode(), JSON, declared)
    return json.loads(result.content), result.stream


def test_what_is_not_for_the_model_is_taken_out_of_an_unwrapped_body() -> None:
    assert understood({**CHAT, **OWN, "temperature": 1}) == ({**CHAT, "temperature": 1}, False)


@pytest.mark.parametrize("key", ["prompt", "input"])
def test_the_same_holds_for_completions_and_embeddings(key: str) -> None:
    assert understood({key: "x", **OWN}) == ({key: "x"}, False)


def test_stream_is_asked_for_by_true_alone() -> None:
    assert understood({**CHAT, "stream": True}) == (CHAT, True)
    assert understood({**CHAT, "stream": 1})[1] is False
    assert understood({"inputs": [1], "stream": True})[1] is True


def test_stream_reaches_a_model_that_declares_it() -> None:
    body = {**CHAT, "stream": True}
    assert understood(body, frozenset({"messages", "stream"})) == (body, True)


def test_stream_false_reaches_a_model_without_signature_as_from_mlflow() -> None:
    body = {**CHAT, "stream": False}
    assert understood(body) == (body, False)
    assert understood(body, frozenset({"messages"})) == (CHAT, False)


def test_a_key_that_the_signature_names_is_the_models() -> None:
    body = {**CHAT, "usage_context": 1}
    assert understood(body, frozenset({"messages", "usage_context"})) == (body, False)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"stream": tru',
        b'["stream"]',
        b'"stream"',
        b'{"dataframe_split": {"columns": ["stream"], "data": [[1]]}, "client_request_id": "a"}',
        b'{"messages": [],  "temperature": 1}',
        b'{"messages": ["say \\"stream\\""]}',
    ],
)
def test_any_other_body_stays_as_it_is_byte_for_byte(body: bytes) -> None:
    assert read(body, JSON, None) == (body, False)


def test_only_json_is_looked_into() -> None:
    body = b'"prompt","stream"\n1,2\n'
    assert read(body, "text/csv", None) == (body, False)
    assert read(json.dumps({**CHAT, "stream": True}).encode(), f"{JSON}; charset=utf-8", None).stream


@pytest.mark.parametrize("start", [b'{"stream": true, "messages": ', b'{"usage_context": '])
@pytest.mark.parametrize("depth", [500, 1000, 20_000])
def test_however_deep_a_body_is_nested_reading_it_raises_nothing(start: bytes, depth: int) -> None:
    open_body = start + b"[" * depth
    assert read(open_body, JSON, None) == (open_body, False)
    read(open_body + b"]" * depth + b"}", JSON, None)
