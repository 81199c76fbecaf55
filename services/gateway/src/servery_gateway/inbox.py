"""Put answers of replicas together. Pure.

A long answer arrives as a RESULT with ``total`` and its first piece, then CHUNKs. Each piece is acknowledged as
it is taken in, so that a replica never has more than a window of one answer under way.
"""

from typing import Any

from servery_common.contracts import frames
from servery_gateway.long_body import LongBody
from servery_gateway.transport import Outcome

JSON = "application/json"
LONGEST_PREDICT_US = 86_400_000_000
"""A day. What a replica says of its times is only believed so far."""


class AnswerTooLong(Exception):
    """The answer is longer than this gateway takes."""


class _Partial:
    __slots__ = ("body", "content_type", "lost", "predict_ms", "status", "total")

    def __init__(self, head: dict[str, Any], total: int) -> None:
        self.status = int(head.get("status", 200))
        self.content_type = str(head.get("ct", JSON))
        self.lost = bool(head.get("lost", False))
        self.predict_ms = predict_ms(head)
        self.total = total
        self.body = LongBody()


class Inbox:
    """Answers that have begun to arrive."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._partial: dict[int, _Partial] = {}

    def result(self, id: int, head: dict[str, Any], piece: bytes | memoryview) -> Outcome | None:
        """Take a RESULT in; return the answer when it is whole. Raises AnswerTooLong."""
        total = int(head.get("total", len(piece)))
        if total > self._max_bytes:
            raise AnswerTooLong
        if total <= len(piece):
            return Outcome(
                int(head.get("status", 200)),
                str(head.get("ct", JSON)),
                bytes(piece),
                bool(head.get("lost", False)),
                predict_ms(head),
            )
        self._partial[id] = _Partial(head, total)
        return self.chunk(id, piece)

    def chunk(self, id: int, piece: bytes | memoryview) -> Outcome | None:
        """Take a CHUNK in; return the answer when it is whole. A piece of nothing known is ignored."""
        partial = self._partial.get(id)
        if partial is None:
            return None
        partial.body.append(piece)
        if len(partial.body) < partial.total:
            return None
        if len(partial.body) > partial.total:
            raise frames.FrameError(f"more than the announced {partial.total} bytes")
        del self._partial[id]
        return Outcome(
            partial.status, partial.content_type, bytes(partial.body), partial.lost, partial.predict_ms
        )

    def forget(self, id: int) -> None:
        """Nobody waits for this answer any more."""
        self._partial.pop(id, None)

    def clear(self) -> None:
        """Nothing that has begun will be finished."""
        self._partial.clear()


def predict_ms(head: dict[str, Any]) -> float | None:
    """Return how long the model's prediction took by the head of a RESULT or END; None when it does not say."""
    # Written by the model's process: it may be anything.
    match head.get("p"):
        case int(microseconds) if microseconds >= 0:
            return min(microseconds, LONGEST_PREDICT_US) / 1000
        case _:
            return None
