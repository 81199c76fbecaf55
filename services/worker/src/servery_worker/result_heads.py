"""Heads of a runner's RESULT records, checked before they are handed on: a runner is untrusted. Pure."""

from typing import Any, NamedTuple

from servery_common.contracts import frames

JSON = "application/json"


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
        """Return what ``raw`` says. Raises FrameError, ValueError or TypeError for nonsense."""
        if raw != self._raw:
            self._head = _checked(frames.read_head(raw))
            self._raw = raw
        return self._head


def _checked(head: dict[str, Any]) -> ResultHead:
    status = int(head.get("status", 200))
    clean: dict[str, Any] = {}
    if status != 200:
        clean["status"] = status
    if "ct" in head:
        clean["ct"] = str(head["ct"])
    if "p" in head:
        clean["p"] = int(head["p"])
    timings = dict(head.get("t") or {})
    return ResultHead(frames.pack_head(clean), status, timings, int(head.get("n", 1)))
