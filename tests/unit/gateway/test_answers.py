import inspect
import json
import re

import pytest
from databricks.sdk._base_client import _BaseClient

from servery_gateway.answers import MAX_PLAIN_TEXT, not_retriable, scoring_answer
from servery_gateway.transport import Outcome


def error(status: int, body: bytes | dict, content_type: str = "application/json") -> tuple[int, dict]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = scoring_answer(Outcome(status, content_type, raw))
    assert answer.content_type == b"application/json"
    return answer.status, json.loads(answer.body)


def test_a_success_passes_byte_for_byte() -> None:
    answer = scoring_answer(Outcome(200, "application/json", b'{"predictions" : [1]}'))
    assert (answer.status, answer.body, answer.content_type) == (
        200,
        b'{"predictions" : [1]}',
        b"application/json",
    )


def test_a_content_type_cannot_smuggle_a_header_in() -> None:
    assert scoring_answer(Outcome(200, "a/b\r\nset-cookie: x", b"")).content_type == b"a/b??set-cookie: x"


def test_an_mlflow_error_keeps_its_code_message_and_stack_trace() -> None:
    body = {"error_code": "INVALID_PARAMETER_VALUE", "message": "m", "stack_trace": "s"}
    assert error(400, body) == (400, body)


def test_the_status_follows_from_the_code() -> None:
    assert error(400, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "m"})[0] == 404


@pytest.mark.parametrize(
    "code", ["INTERNAL_ERROR", "NOT_IMPLEMENTED", "TEMPORARILY_UNAVAILABLE", "WHO_KNOWS"]
)
def test_a_fault_of_the_model_is_never_a_fault_of_the_platform(code: str) -> None:
    status, body = error(500, {"error_code": code, "message": "boom"})
    assert (status, body["error_code"], body["message"]) == (400, "BAD_REQUEST", "boom")


def test_plain_text_is_wrapped() -> None:
    assert error(415, b"This predictor only supports", "text/plain") == (
        400,
        {"error_code": "BAD_REQUEST", "message": "This predictor only supports"},
    )


@pytest.mark.parametrize(
    "body", [b'{"detail": "x"}', b"[1]", b'"x"', b"\xff\xfe", b'{"error_code": 1, "message": 2}']
)
def test_json_of_another_shape_is_wrapped_too(body: bytes) -> None:
    status, parsed = error(500, body)
    assert (status, parsed["error_code"]) == (400, "BAD_REQUEST")
    assert parsed["message"]


def test_an_empty_answer_names_its_status() -> None:
    assert error(418, b"")[1]["message"] == "The model answered 418 I'm a Teapot."
    assert error(499, b"")[1]["message"] == "The model answered with status 499."


def test_a_very_long_text_is_cut() -> None:
    assert len(error(500, b"x" * 100_000)[1]["message"]) < MAX_PLAIN_TEXT + 10


def test_mlflows_own_timeout_is_a_deadline() -> None:
    status, body = error(504, b"Request processing time exceeded limit")
    assert (status, body["error_code"]) == (504, "DEADLINE_EXCEEDED")


@pytest.mark.parametrize(
    ("phrase", "shown"),
    [
        ("Unexpected error", "unexpected error"),
        ("ClusterNotReadyException", "clusterNotReadyException"),
        (
            "does not have any associated worker environments",
            "Does not have any associated worker environments",
        ),
    ],
)
def test_a_models_message_does_not_make_the_sdk_ask_again(phrase: str, shown: str) -> None:
    body = {"error_code": "BAD_REQUEST", "message": f"{phrase}: x, {phrase}"}
    assert error(400, body)[1]["message"] == f"{shown}: x, {shown}"
    assert error(500, f"oh: {phrase}".encode(), "text/plain")[1]["message"] == f"oh: {shown}"


def test_no_phrase_the_sdk_retries_on_is_left() -> None:
    phrases = re.findall(r'^ +"([^"]+)",$', inspect.getsource(_BaseClient._is_retryable), re.MULTILINE)
    assert "Unexpected error" in phrases
    for phrase in phrases:
        assert phrase not in not_retriable(f"x {phrase} y")
