"""What a runner says of an answer, checked before it is handed on: a runner is untrusted. Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from servery_common.contracts import frames

JSON = "application/json"
LONGEST_CONTENT_TYPE = 200
LONGEST_PREDICTION_US = 10**12
"""Microseconds; more than any time limit."""


class ResultHead(NamedTuple):
    """What a runner said of an answer."""

    packed: bytes
    """As it goes to the gateway."""
    status: int
    timings: dict[str, Any]
    company: int
    """How many requests shared the prediction."""


class ResultHeads:
    """Reads heads. Answers of one prediction share theirs, so the last one is remembered."""

    def __init__(self) -> None:
        self._raw = b""
        self._head = ResultHead(b"", 200, {}, 1)

    def read(self, raw: bytes) -> ResultHead:
        """Return what ``raw`` says. Raises FrameError, ValueError, TypeError or OverflowError for nonsense."""
        if raw != self._raw:
            self._head = _checked(frames.read_head(raw))
            self._raw = raw
        return self._head


def content_type(head: Mapping[str, Any]) -> str:
    """Return the content type a head names. Raises FrameError for what must not be the value of a header."""
    said = head.get("ct") or JSON
    if not (
        isinstance(said, str) and len(said) <= LONGEST_CONTENT_TYPE and said.isascii() and said.isprintable()
    ):
        raise frames.FrameError("a content type that is none")
    return said


def error_status(head: Mapping[str, Any]) -> int:
    """Return the status of an error. Raises FrameError when it is none; KeyError, ValueError, TypeError, too."""
    status = int(head["status"])
    if not 400 <= status <= 599:
        # 1xx, 204, 205 and 304 have no body: a client would take one for the answer to its next request.
        raise frames.FrameError(f"a status of {status}")
    return status


def prediction_time(head: Mapping[str, Any]) -> dict[str, int]:
    """Return what a head says of how long the model took, if anything."""
    return {"p": min(max(0, int(head["p"])), LONGEST_PREDICTION_US)} if "p" in head else {}


def _checked(head: dict[str, Any]) -> ResultHead:
    clean: dict[str, Any] = {}
    status = 200
    if head.get("status", 200) != 200:
        clean["status"] = status = error_status(head)
    if "ct" in head:
        clean["ct"] = content_type(head)
    clean |= prediction_time(head)
    timings = dict(head.get("t") or {})
    return ResultHead(frames.pack_head(clean), status, timings, int(head.get("n", 1)))
