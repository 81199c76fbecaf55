"""Requests that wait for a prediction, and which of them are predicted together.

Joining is greedy and late: a request that finds the model idle is predicted at once, by itself; what comes meanwhile
waits and is predicted together when the model is free. There is no timer to wait for company, so joining costs no
latency. Predictions of a model that only waits for something else run side by side, up to ``slots`` of them. Those of
one that computes would fight for the interpreter lock and all take longer: they run one after the other, but for one
that takes far longer than usual, which has others beside it.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from typing import Any, Callable, NamedTuple, Optional, Union

from servery_runner.batch_proof import Proof
from servery_runner.batch_size import BatchSize
from servery_runner.lifo_condition import LifoCondition
from servery_runner.rows import Rows
from servery_runner.scoring import JSON
from servery_runner.streaming import Flow

UNUSUAL = 3.0
"""A prediction that takes this many times the usual has another one beside it, but none before …"""
LEAST_PATIENCE_SECONDS = 0.05
NOW = float("-inf")
REMEMBERED_KINDS = 256


class Request:
    """A request in the runner."""

    __slots__ = (
        "body",
        "cancelled",
        "content_type",
        "flow",
        "id",
        "put_ns",
        "rows",
        "solo",
        "traced",
        "until",
    )

    def __init__(
        self,
        id: int,
        content_type: str,
        body: Union[bytes, bytearray],
        *,
        until: float,
        solo: bool = False,
        traced: bool = False,
    ) -> None:
        self.id = id
        self.content_type = content_type
        self.body = body
        self.until = until
        """On ``time.monotonic``, which all processes of a machine share: later nobody waits for it."""
        self.solo = solo
        """To be predicted by itself."""
        self.traced = traced
        self.flow = Flow()
        self.cancelled = False
        self.put_ns = time.time_ns()
        self.rows: Optional[Rows] = None
        """Its rows, once they were read; None for what cannot be joined."""


class Taken(NamedTuple):
    """What one thread works on next."""

    batch: list[Request]
    """Of one kind, to be predicted together; empty when all that was looked at had expired."""
    expired: list[Request]
    """Their time had passed: not to be predicted."""


Read = Callable[[Union[bytes, bytearray]], Optional[Rows]]


class Backlog:
    """The queue between the thread that reads requests and those that predict. All methods may be called by any."""

    def __init__(self, proof: Proof, read: Read, clock: Callable[[], float] = time.monotonic) -> None:
        self._proof = proof
        self._proven: dict[tuple[Any, ...], int] = {}
        """Rows that may be joined, by kind: what the proof says, remembered."""
        self._read = read
        self._clock = clock
        self._size = BatchSize(proof.max_rows)
        for count, seconds in proof.seconds:
            self._size.record(count, seconds)
        self._changed = LifoCondition()
        self._queue: deque[Request] = deque()
        self._waiting: dict[int, Request] = {}
        self._running: dict[int, float] = {}
        """When each prediction that runs began, by its thread."""
        self._accompanied: set[int] = set()
        """Threads whose prediction has, or had, another one beside it."""
        self._watched: list[float] = []
        """Times at which threads will look whether the next prediction may begin beside those that run."""

    def put(self, requests: list[Request]) -> None:
        """Add requests that have just come."""
        with self._changed:
            for request in requests:
                self._waiting[request.id] = request
            self._queue.extend(requests)
            self._have_watched()

    def put_back(self, requests: list[Request]) -> None:
        """A prediction of these together failed: predict each by itself, before what came later."""
        with self._changed:
            for request in requests:
                request.solo = True
                self._waiting[request.id] = request
            self._queue.extendleft(reversed(requests))
            self._have_watched()

    def cancel(self, id: int) -> bool:
        """Take a request out; False when it is not waiting (any more)."""
        with self._changed:
            request = self._waiting.pop(id, None)
            if request is None:
                return False
            request.cancelled = True
            return True

    def take(self) -> Taken:
        """Wait until there is something to predict; ``done`` must follow, from the same thread."""
        with self._changed:
            while (at := self._next_at()) is None or at > self._clock():
                if at is None:
                    self._changed.wait()
                else:
                    self._watched.append(at)
                    self._changed.wait(max(0.0, at - self._clock()))
                    self._watched.remove(at)
            self._enter(threading.get_ident())
            first = self._queue.popleft()
            if not self._is_joinable(first):
                return self._begin([first])
            limit = self._size.limit
            looked_at = [first, *(self._queue.popleft() for _ in range(min(limit - 1, len(self._queue))))]
            self._have_watched()
        # Bodies are read without the lock, or the thread that takes requests in would have to wait.
        batch, others = self._of_one_kind(looked_at, limit)
        with self._changed:
            self._queue.extendleft(reversed(others))
            return self._begin(batch)

    def done(self, rows: int | None, seconds: float, busy: float | None) -> None:
        """What was taken is answered; ``rows``: None when they were not counted, 0 when it tells nothing of others.

        ``busy``: see ``Effort``; None when it was not measured. ``take`` must follow: nobody else is woken for what
        waits now.
        """
        thread = threading.get_ident()
        with self._changed:
            del self._running[thread]
            if rows != 0:
                self._size.record(rows, seconds, busy, alone=thread not in self._accompanied)
            self._accompanied.discard(thread)

    @property
    def waits(self) -> bool:
        """Whether predictions run side by side, as the model mostly waits for something else."""
        return self._size.waits

    def _next_at(self) -> Optional[float]:
        """When the next prediction may begin, which may have been long ago; None: nothing waits."""
        while self._queue and self._queue[0].cancelled:
            self._queue.popleft()
        if not self._queue:
            return None
        if not self._running or self.waits:
            return NOW
        # Of those that run: one that takes for ever must not make all others wait, one after the other.
        patience = max(LEAST_PATIENCE_SECONDS, UNUSUAL * self._size.typical_seconds)
        return max(self._running.values()) + patience

    def _have_watched(self) -> None:
        """See to it that a thread looks when the next prediction may begin; it has another see to what it leaves."""
        at = self._next_at()
        if at is not None and (at <= self._clock() or all(at < other for other in self._watched)):
            self._changed.notify()

    def _enter(self, thread: int) -> None:
        if self._running:
            self._accompanied.update(self._running)
            self._accompanied.add(thread)
        self._running[thread] = self._clock()

    def _begin(self, requests: list[Request]) -> Taken:
        now = self._clock()
        batch: list[Request] = []
        expired: list[Request] = []
        for request in requests:
            if self._waiting.pop(request.id, None) is not None:
                (batch if request.until > now else expired).append(request)
        self._have_watched()
        return Taken(batch, expired)

    def _is_joinable(self, request: Request) -> bool:
        return bool(self._proof.formats) and not request.solo

    def _of_one_kind(self, requests: list[Request], limit: int) -> tuple[list[Request], list[Request]]:
        first = requests[0]
        kind = self._rows_of(first)
        if kind is None:
            return [first], requests[1:]
        limit = min(limit, self._most(kind))
        batch, others, count = [first], list[Request](), kind.length
        for request in requests[1:]:
            rows = None if request.solo else self._rows_of(request)
            if rows is not None and rows.kind == kind.kind and count + rows.length <= limit:
                batch.append(request)
                count += rows.length
            else:
                others.append(request)
        return batch, others

    def _rows_of(self, request: Request) -> Optional[Rows]:
        """Read its rows, once: what cannot be joined is marked to be predicted by itself."""
        if request.rows is None:
            rows = self._read(request.body) if _is_json(request.content_type) else None
            if rows is None or not self._most(rows):
                request.solo = True
                return None
            request.rows = rows
        return request.rows

    def _most(self, rows: Rows) -> int:
        most = self._proven.get(rows.kind)
        if most is None:
            if len(self._proven) >= REMEMBERED_KINDS:
                self._proven.clear()
            most = self._proven[rows.kind] = self._proof.most(rows)
        return most


@functools.lru_cache(maxsize=64)
def _is_json(content_type: str) -> bool:
    """Whether MLflow reads the body as JSON; any parameter but the usual charset is for MLflow to refuse."""
    mime_type, *parameters = (part.strip() for part in content_type.split(";"))
    return mime_type == JSON and all(parameter.lower() == "charset=utf-8" for parameter in parameters)
