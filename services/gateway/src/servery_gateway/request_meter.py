"""What is counted of each served entity: answers by status, and how long they took. Pure: the time is an argument.

Recording is on the way of every request: it adds to integers in lists that were made before. A request counts when
its served entity was chosen and it got an answer; nobody is left to tell when the client went away.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from prometheus_client.core import Exemplar

from servery_common.contracts.metrics import LATENCY_BUCKETS_MS, EntityMetrics, Histogram, RequestCounts
from servery_common.contracts.routes import EndpointRoute
from servery_gateway.activity import Activity
from servery_gateway.routing_table import Change

WINDOW_SECONDS = 60.0
IDLE_ROUNDS = 30
"""A served entity without a request in the last minute is reported in one report of so many."""


class Durations(NamedTuple):
    """A histogram as it is now. Not copied: it goes on counting."""

    counts: list[int]
    sum_ms: float
    exemplars: Mapping[int, Exemplar]


class LatencyHistogram:
    """Durations in fixed buckets."""

    __slots__ = ("_counts", "_exemplars", "_sum_ms")

    def __init__(self) -> None:
        self._exemplars: dict[int, Exemplar] = {}
        self._counts = [0] * (len(LATENCY_BUCKETS_MS) + 1)
        self._sum_ms = 0.0

    def record(self, milliseconds: float) -> None:
        """Add one."""
        self._counts[bisect_left(LATENCY_BUCKETS_MS, milliseconds)] += 1
        self._sum_ms += milliseconds

    def exemplify(self, milliseconds: float, trace_id: str) -> None:
        """A duration that was recorded is of a request that was traced: the newest of its bucket is kept."""
        self._exemplars[bisect_left(LATENCY_BUCKETS_MS, milliseconds)] = Exemplar(
            {"trace_id": trace_id}, milliseconds / 1000, time.time()
        )

    def look(self) -> Durations:
        """Return what is recorded, for a scrape, which comes in a thread."""
        return Durations(self._counts, self._sum_ms, self._exemplars)

    def read(self) -> Histogram:
        """Return what was recorded so far."""
        return Histogram(counts=tuple(self._counts), sum_ms=round(self._sum_ms, 3))


class EntityCounts(NamedTuple):
    """One served entity as it is now."""

    requests: int
    client_errors: int
    server_errors: int
    phases: Mapping[str, Durations]
    """How long answers took: ``total``, and of it ``queue`` and ``predict``."""


class EntityMeter:
    """The counters of one served entity."""

    __slots__ = (
        "_active",
        "_client_errors",
        "_latency",
        "_marks",
        "_prediction",
        "_queue_time",
        "_requests",
        "_served_entity_id",
        "_server_errors",
    )

    def __init__(self, served_entity_id: str, active: set[str]) -> None:
        self._served_entity_id = served_entity_id
        self._active = active
        """Gets the id with each record."""
        self._requests = 0
        self._client_errors = 0
        self._server_errors = 0
        self._latency = LatencyHistogram()
        self._queue_time = LatencyHistogram()
        self._prediction = LatencyHistogram()
        self._marks: deque[tuple[float, int, int, int]] = deque()
        """The counters at each reading of the last minute; the first is the one the minute is counted from."""

    def record(
        self,
        status: int,
        latency_ms: float,
        *,
        queue_ms: float | None = None,
        predict_ms: float | None = None,
    ) -> None:
        """Count an answer. ``queue_ms`` and ``predict_ms`` are None for a request that did not come so far."""
        self._active.add(self._served_entity_id)
        self._requests += 1
        if status >= 500:
            self._server_errors += 1
        elif status >= 400:
            self._client_errors += 1
        self._latency.record(latency_ms)
        if queue_ms is not None:
            self._queue_time.record(queue_ms)
        if predict_ms is not None:
            self._prediction.record(predict_ms)

    def exemplify(
        self, trace_id: str, latency_ms: float, queue_ms: float | None, predict_ms: float | None
    ) -> None:
        """The request that was just recorded was traced."""
        self._latency.exemplify(latency_ms, trace_id)
        if queue_ms is not None:
            self._queue_time.exemplify(queue_ms, trace_id)
        if predict_ms is not None:
            self._prediction.exemplify(predict_ms, trace_id)

    def look(self) -> EntityCounts:
        """Return what is counted, for a scrape, which comes in a thread."""
        return EntityCounts(
            self._requests,
            self._client_errors,
            self._server_errors,
            {
                "total": self._latency.look(),
                "queue": self._queue_time.look(),
                "predict": self._prediction.look(),
            },
        )

    def read(self, now: float, *, in_flight: int, queued: int) -> EntityMetrics:
        """Return everything; to be called every few seconds, which is how exact the last minute is."""
        last_minute = self._take_last_minute(now)
        return EntityMetrics(
            served_entity_id=self._served_entity_id,
            last_minute=last_minute,
            answered=RequestCounts(
                requests=self._requests,
                client_errors=self._client_errors,
                server_errors=self._server_errors,
            ),
            in_flight=in_flight,
            queued=queued,
            latency=self._latency.read(),
            queue_time=self._queue_time.read(),
            prediction=self._prediction.read(),
        )

    def _take_last_minute(self, now: float) -> RequestCounts:
        marks = self._marks
        # The newest mark that is at least a minute old stays: between two marks nothing is known.
        while len(marks) > 1 and marks[1][0] <= now - WINDOW_SECONDS:
            marks.popleft()
        _, requests, client_errors, server_errors = marks[0] if marks else (now, 0, 0, 0)
        if marks and marks[0][0] > now - WINDOW_SECONDS:
            # Younger than a minute: all it ever counted is of the last one.
            requests = client_errors = server_errors = 0
        marks.append((now, self._requests, self._client_errors, self._server_errors))
        return RequestCounts(
            requests=self._requests - requests,
            client_errors=self._client_errors - client_errors,
            server_errors=self._server_errors - server_errors,
        )


class RequestMeters:
    """The meters of all served entities that are routed to."""

    def __init__(self) -> None:
        self._meters: dict[str, EntityMeter] = {}
        self.activity: Activity[str] = Activity(IDLE_ROUNDS)
        """Which of them have something to tell, by served entity id."""

    def follow(self, changes: Iterable[Change[EndpointRoute]]) -> None:
        """Follow changes of routes: a served entity that stays keeps its counters."""
        for _, before, after in changes:
            kept = {} if after is None else {one.served_entity_id: one for one in after.served_entities}
            for entity in () if before is None else before.served_entities:
                if entity.served_entity_id not in kept:
                    self._meters.pop(entity.served_entity_id, None)
                    self.activity.remove(entity.served_entity_id)
            for served_entity_id in kept:
                if served_entity_id not in self._meters:
                    self._meters[served_entity_id] = EntityMeter(served_entity_id, self.activity.active)
                    self.activity.add(served_entity_id)

    def of(self, served_entity_id: str) -> EntityMeter | None:
        """Return the meter of a served entity, None when it is not routed to."""
        return self._meters.get(served_entity_id)
