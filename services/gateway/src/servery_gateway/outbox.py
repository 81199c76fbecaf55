"""What waits to be sent to one replica, cut into frames. Pure: no clock, no connection.

Short requests travel together, up to ``FRAME_BYTES``. Longer bodies go piece by piece within a window of unacknowledged
bytes, each when the one before was taken in whole: a window is all that goes ahead of short requests that come after.
"""

import itertools
from collections import deque
from typing import Any, NamedTuple

import orjson

from servery_common.contracts import frames
from servery_gateway.inbox import JSON
from servery_gateway.long_body import PIECE_BYTES, LongBody
from servery_gateway.transport import ReplicaRequest

FRAME_BYTES = frames.CHUNK_BYTES
"""Longest message, heads included."""

_numbers = itertools.count(1)
"""Of records that could be equal to others without."""


class Frame(NamedTuple):
    """One message to a replica."""

    parts: tuple[bytes | memoryview, ...]
    """Of one payload: pieces of long bodies are not copied."""
    traceparent: str | None
    """Of the request in it, when it is exactly one."""


class _Sending:
    """A long body until all of it was taken in."""

    __slots__ = ("body", "request", "sent", "unacknowledged")

    def __init__(self, request: ReplicaRequest) -> None:
        self.request = request
        self.body = request.body
        self.sent = 0
        self.unacknowledged = 0

    @property
    def may_send(self) -> bool:
        left = len(self.body) - self.sent
        return left > 0 and self.unacknowledged + min(left, PIECE_BYTES) <= frames.WINDOW_BYTES

    @property
    def finished(self) -> bool:
        return self.sent == len(self.body) and not self.unacknowledged

    def next_piece(self, now_ms: int) -> Frame:
        piece = self._cut(self.sent, min(self.sent + PIECE_BYTES, len(self.body)))
        length = sum(map(len, piece))
        if self.sent == 0:
            # It may have waited for its turn: the replica counts from now on.
            waited = max(0, now_ms - self.request.sent_at_ms)
            request = self.request._replace(sent_at_ms=now_ms, ttl_ms=max(1, self.request.ttl_ms - waited))
            kind, head = frames.REQUEST, _request_head(request, total=len(self.body))
        else:
            kind, head = frames.CHUNK, frames.pack_head({"n": next(_numbers)})
        start = frames.start(kind, self.request.id, head, length)
        frame = Frame((start, *piece), self.request.traceparent if self.sent == 0 else None)
        self.sent += length
        self.unacknowledged += length
        return frame

    def _cut(self, start: int, stop: int) -> list[memoryview]:
        if isinstance(self.body, LongBody):
            return self.body.part(start, stop)
        return [memoryview(self.body)[start:stop]]


class Outbox:
    """Records for one replica that have not been sent."""

    def __init__(self) -> None:
        self._short: deque[tuple[int, bytes, str | None]] = deque()
        self._long: dict[int, _Sending] = {}
        """By age. Pieces of the first are sent, the others wait until it was taken in."""

    def add(self, request: ReplicaRequest) -> None:
        """Queue a request."""
        if isinstance(request.body, LongBody) or len(request.body) > PIECE_BYTES:
            self._long[request.id] = _Sending(request)
        else:
            record = frames.pack(frames.REQUEST, request.id, _request_head(request), request.body)
            self._short.append((request.id, record, request.traceparent))

    def add_probe(self) -> None:
        """Queue an empty record: a frame of its own when nothing else waits, nothing at all otherwise."""
        self._short.append((0, b"", None))

    def cancel(self, id: int) -> None:
        """Queue a CANCEL, or take the request back if nothing of it was sent."""
        unsent = next((entry for entry in self._short if entry[0] == id), None)
        if unsent is not None:
            self._short.remove(unsent)
            return
        long = self._long.pop(id, None)
        if long is None or long.sent:
            self._short.append((id, frames.encode(frames.CANCEL, id), None))

    def acknowledge_answer(self, id: int, count: int) -> None:
        """Queue a WINDOW record: ``count`` bytes of an answer were taken in."""
        head = {"bytes": count, "n": next(_numbers)}
        self._short.append((id, frames.encode(frames.WINDOW, id, head), None))

    def open_window(self, id: int, count: int) -> None:
        """The replica took in ``count`` bytes of the request's body."""
        long = self._long.get(id)
        if long is not None and long.sent:
            long.unacknowledged = max(0, long.unacknowledged - count)
            if long.finished:
                del self._long[id]

    def forget(self, id: int) -> None:
        """The request is over; what is left of its body need not be sent."""
        self._long.pop(id, None)

    def is_waiting(self, id: int) -> bool:
        """Whether nothing of this request was sent yet."""
        long = self._long.get(id)
        return long is not None and not long.sent

    def take_short(self) -> Frame | None:
        """Return the next frame of short records, or None."""
        if not self._short:
            return None
        _, record, traceparent = self._short.popleft()
        if not self._short:
            return Frame((record,), traceparent)
        records, size = [record], len(record)
        while self._short and size + len(self._short[0][1]) <= FRAME_BYTES:
            _, record, _ = self._short.popleft()
            records.append(record)
            size += len(record)
        return Frame(tuple(records), traceparent if len(records) == 1 else None)

    def take_piece(self, now_ms: int) -> Frame | None:
        """Return the next piece of the oldest long body, or None when there is none or its window is closed.

        ``now_ms``: epoch milliseconds.
        """
        oldest = self._oldest
        if oldest is None or not oldest.may_send:
            return None
        return oldest.next_piece(now_ms)

    @property
    def has_piece(self) -> bool:
        """Whether ``take_piece`` would answer with one."""
        oldest = self._oldest
        return oldest is not None and oldest.may_send

    @property
    def _oldest(self) -> _Sending | None:
        return next(iter(self._long.values()), None)

    @property
    def empty(self) -> bool:
        """Whether nothing is left, not even behind a closed window."""
        return not self._short and not self._long


def _request_head(request: ReplicaRequest, total: int | None = None) -> bytes:
    head: dict[str, Any] = {
        "ttl": request.ttl_ms,
        "rid": request.request_id,
        "at": request.sent_at_ms,
        "stream_ttl": request.stream_ttl_ms,
    }
    if request.content_type != JSON:
        head["ct"] = request.content_type
    if request.traceparent is not None:
        head["tp"] = request.traceparent
    if total is not None:
        head["total"] = total
    return orjson.dumps(head)
