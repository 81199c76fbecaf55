"""Turn what a replica answered into what the client sees: MLflow's answers in, Databricks' shapes out. Pure.

Successes pass through byte for byte. Of errors, only the codes the clients know leave this gateway, with their
status, always as a JSON object. A 5xx means that the platform failed, so a model's own becomes a 400; clients retry a
5xx, and running the same body through the same model again helps nobody. ``present`` is the one place where an
error made by a model gets its last form.

databricks-sdk also retries, for five minutes, an error of any status whose message contains one of a few phrases. In
a model's message their first letter changes its case: the comparison is case-sensitive, the reader is not.
"""

import re
from http import HTTPStatus
from typing import Any, cast

import orjson

from servery_common.errors import HTTP_STATUS
from servery_gateway.http import JSON, Answer, header_value
from servery_gateway.messages import TIMED_OUT
from servery_gateway.transport import Outcome

MAX_PLAIN_TEXT = 4096
"""Characters of a plain-text error that are shown."""
_RETRIED = re.compile(
    "|".join(
        map(
            re.escape,
            (
                "com.databricks.backend.manager.util.UnknownWorkerEnvironmentException",
                "does not have any associated worker environments",
                "There is no worker environment with id",
                "Unknown worker environment",
                "ClusterNotReadyException",
                "Unexpected error",
                "Please try again later or try a faster operation.",
                "RPC token bucket limit has been exceeded",
            ),
        )
    )
)


def scoring_answer(outcome: Outcome) -> Answer:
    """Return the HTTP answer for what a replica answered."""
    if 200 <= outcome.status < 300:
        content_type = header_value(outcome.content_type) if outcome.content_type else JSON
        return Answer(outcome.status, outcome.body, content_type)
    error = _json_error(outcome.body)
    if error is not None:
        return present(error)
    if outcome.status == HTTPStatus.GATEWAY_TIMEOUT:
        # MLflow's own timeout, not an error of this code that the model raised: those are never a 5xx.
        return Answer(504, orjson.dumps({"error_code": "DEADLINE_EXCEEDED", "message": TIMED_OUT}))
    return present({"error_code": "BAD_REQUEST", "message": _plain_text(outcome)})


def present(error: dict[str, Any]) -> Answer:
    """Return an error of a model as an answer: a known code, its status, never a fault of the platform."""
    code = error["error_code"]
    status = HTTP_STATUS.get(code, 500)
    if status >= 500:
        code, status = "BAD_REQUEST", 400
    message = not_retriable(error["message"])
    return Answer(status, orjson.dumps({**error, "error_code": code, "message": message}))


def not_retriable(message: str) -> str:
    """Return the message without the phrases that make databricks-sdk send the request again."""
    return _RETRIED.sub(lambda phrase: phrase[0][0].swapcase() + phrase[0][1:], message)


def _json_error(body: bytes) -> dict[str, Any] | None:
    """Return the body if it is an error as MLflow writes them."""
    try:
        parsed: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(parsed, dict):
        return None
    error = cast(dict[str, Any], parsed)
    if isinstance(error.get("error_code"), str) and isinstance(error.get("message"), str):
        return error
    return None


def error_message(body: bytes) -> str | None:
    """Return the message of a body that is an error; None when it is none."""
    error = _json_error(body)
    return None if error is None else error["message"]


def _plain_text(outcome: Outcome) -> str:
    text = outcome.body.decode("utf-8", "replace").strip()
    if text:
        return text if len(text) <= MAX_PLAIN_TEXT else text[:MAX_PLAIN_TEXT] + " …"
    try:
        return f"The model answered {outcome.status} {HTTPStatus(outcome.status).phrase}."
    except ValueError:
        return f"The model answered with status {outcome.status}."
