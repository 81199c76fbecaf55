"""What waits to be sent to one replica, cut into frames. Pure: no clock, no connection.

Short requests travel together, up to ``FRAME_BYTES``. A longer body goes piece by piece, each body with its own
window of unacknowledged bytes, and never more than one piece goes ahead of short requests that came after it.
"""

import itertools
from collections import deque
from typing import Any, NamedTuple

import orjson

from servery_common.contracts import frames
from servery_gateway.inbox import JSON
from servery_gateway.transport import ReplicaRequest

FRAME_BYTES = frames.CHUNK_BYTES
"""Longest message, heads included."""
PIECE_BYTES = FRAME_BYTES - 2048
"""Longest piece of a body: leaves room for the record's header and head."""

_numbers = itertools.count(1)
"""Of records that could be equal to others without."""


class Frame(NamedTuple):
    """One message to a replica."""

    parts: tuple[bytes | memoryview, ...]
    """Of one payload: pieces of long bodies are not copied."""
    traceparent: str | None
    """Of the request in it, when it is exactly one."""


class _LongBody:
    """A body under way in pieces."""

    __slots__ = ("body", "request", "sent", "unacknowledged")

    def __init__(self, request: ReplicaRequest) -> None:
        self.request = request
        self.body = memoryview(request.body)
        self.sent = 0
        self.unacknowledged = 0

    @property
    def may_send(self) -> bool:
        return self.unacknowledged + PIECE_BYTES <= frames.WINDOW_BYTES

    @property
    def finished(self) -> bool:
        return self.sent == len(self.body)

    def next_piece(self, now_ms: int) -> Frame:
        piece = self.body[self.sent : self.sent + PIECE_BYTES]
        if self.sent == 0:
            # It may have waited for its turn: the replica counts from now on.
            waited = max(0, now_ms - self.request.sent_at_ms)
            request = self.request._replace(sent_at_ms=now_ms, ttl_ms=max(1, self.request.ttl_ms - waited))
            kind, head = frames.REQUEST, _request_head(request, total=len(self.body))
        else:
            kind, head = frames.CHUNK, frames.pack_head({"n": next(_numbers)})
        start = frames.start(kind, self.request.id, head, len(piece))
        frame = Frame((start, piece), self.request.traceparent if self.sent == 0 else None)
        self.sent += len(piece)
        self.unacknowledged += len(piece)
        return frame


class Outbox:
    """Records for one replica that have not been sent."""

    def __init__(self) -> None:
        self._short: deque[tuple[int, bytes, str | None]] = deque()
        self._long: dict[int, _LongBody] = {}
        """By age. Of the first ``MOST_LONG_BODIES`` pieces are sent."""
        self._turn: deque[int] = deque()
        """Those of which pieces are sent, but for such whose window is closed."""
        self._under_way: set[int] = set()

    def add(self, request: ReplicaRequest) -> None:
        """Queue a request."""
        if len(request.body) > PIECE_BYTES:
            self._long[request.id] = _LongBody(request)
            self._begin_more()
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
        long = self._remove(id)
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
            if id not in self._turn:
                self._turn.append(id)

    def forget(self, id: int) -> None:
        """The request is over; what is left of its body need not be sent."""
        self._remove(id)

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
        """Return the next piece of a long body whose window is open, each body in its turn, or None.

        ``now_ms``: epoch milliseconds.
        """
        while self._turn:
            attempt = self._turn.popleft()
            long = self._long.get(attempt)
            if long is None or not long.may_send:
                continue  # open_window() gives it its turn back.
            frame = long.next_piece(now_ms)
            if long.finished:
                self._remove(attempt)
            else:
                self._turn.append(attempt)
            return frame
        return None

    @property
    def has_piece(self) -> bool:
        """Whether ``take_piece`` would answer with one."""
        return any((long := self._long.get(attempt)) is not None and long.may_send for attempt in self._turn)

    def _begin_more(self) -> None:
        for one in self._long:
            if len(self._under_way) >= frames.MOST_LONG_BODIES:
                return
            if one not in self._under_way:
                self._under_way.add(one)
                self._turn.append(one)

    def _remove(self, id: int) -> _LongBody | None:
        long = self._long.pop(id, None)
        if long is not None:
            self._under_way.discard(id)
            self._begin_more()
        return long

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
