"""Workers and replicas as heartbeats tell of them: nothing can scrape a worker that is a container without a way in."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from servery_common.contracts.replicas import BATCH_BOUNDS, ReplicaObservation, WorkerHeartbeat
from servery_common.contracts.states import ReplicaState
from servery_common.metric_families import add_histogram, gauge
from servery_controller.telemetry.census import ENTITY, Names

FORGET_SECONDS = 60.0
"""A worker that is silent for so long is not shown any more; before, its age says that it is silent."""
REPLICA = (*ENTITY, "replica")
BOUNDS = tuple(map(float, BATCH_BOUNDS))


class _Heard(NamedTuple):
    at: float
    heartbeat: WorkerHeartbeat


class _Replica(NamedTuple):
    names: Names
    seen: ReplicaObservation

    @property
    def labels(self) -> tuple[str, ...]:
        return (*self.names, self.seen.replica_id)


class Fleet(Collector):
    """``names`` returns whose each known replica is, by its id."""

    def __init__(
        self, names: Callable[[], Mapping[str, Names]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._names = names
        self._clock = clock
        self._workers: dict[str, _Heard] = {}

    async def heard(self, heartbeat: WorkerHeartbeat) -> None:
        """Take a heartbeat in."""
        now = self._clock()
        self._workers[heartbeat.worker_id] = _Heard(now, heartbeat)
        for worker_id in [one for one, (at, _) in self._workers.items() if now - at > FORGET_SECONDS]:
            del self._workers[worker_id]

    def collect(self) -> Iterable[Metric]:
        """Implement Collector."""
        workers = list(self._workers.values())
        names = self._names()
        replicas = [
            _Replica(names[seen.replica_id], seen)
            for _, heartbeat in workers
            for seen in heartbeat.replicas
            if seen.replica_id in names and seen.state is not ReplicaState.STOPPED
        ]
        yield from _workers(workers, self._clock())
        yield from _states(replicas)
        yield from _usage(replicas)
        yield _batches(replicas)


def _workers(workers: Iterable[_Heard], now: float) -> Iterator[Metric]:
    label = ("worker",)
    yield gauge(
        "servery_worker_heartbeat_age_seconds",
        "Since a worker was last heard of.",
        label,
        (((one.heartbeat.worker_id,), now - one.at) for one in workers),
    )
    yield gauge(
        "servery_worker_slots",
        "Slots of a worker (a replica takes 4).",
        label,
        (((one.heartbeat.worker_id,), one.heartbeat.capacity_slots) for one in workers),
    )
    yield gauge(
        "servery_worker_slots_used",
        "Slots that its replicas take.",
        label,
        (((one.heartbeat.worker_id,), sum(r.slots for r in one.heartbeat.replicas)) for one in workers),
    )
    yield gauge(
        "servery_worker_credentials_left_ratio",
        "Share of the lifetime of its credentials that is left; they are renewed at about half.",
        label,
        (
            ((one.heartbeat.worker_id,), one.heartbeat.access_left)
            for one in workers
            if one.heartbeat.access_left is not None
        ),
    )
    yield gauge(
        "servery_worker_warm_parents",
        "Environments in which a replica starts in a fraction of a second.",
        label,
        (((one.heartbeat.worker_id,), len(one.heartbeat.warm)) for one in workers),
    )
    yield gauge(
        "servery_worker_warm_parent_bytes",
        "Memory of the processes that are kept for that.",
        label,
        (((one.heartbeat.worker_id,), sum(w.memory_bytes for w in one.heartbeat.warm)) for one in workers),
    )


def _states(replicas: Iterable[_Replica]) -> Iterator[Metric]:
    states: dict[Names, Counter[ReplicaState]] = {}
    for replica in replicas:
        states.setdefault(replica.names, Counter())[replica.seen.state] += 1
    shown = [state for state in ReplicaState if state is not ReplicaState.STOPPED]
    yield gauge(
        "servery_replicas",
        "Replicas of a served entity, by state.",
        (*ENTITY, "state"),
        (((*names, state.lower()), counts[state]) for names, counts in states.items() for state in shown),
    )


def _usage(replicas: Iterable[_Replica]) -> Iterator[Metric]:
    yield gauge(
        "servery_replica_cpu_ratio",
        "Processor use of a replica's model process, of all processors it may use.",
        REPLICA,
        ((r.labels, r.seen.cpu_percent / 100) for r in replicas if r.seen.cpu_percent is not None),
    )
    yield gauge(
        "servery_replica_memory_bytes",
        "Resident memory of a replica's model process, without the files it maps.",
        REPLICA,
        ((r.labels, r.seen.memory_bytes) for r in replicas if r.seen.memory_bytes is not None),
    )
    yield gauge(
        "servery_replica_memory_limit_bytes",
        "Most it may have; a process that holds more is replaced.",
        REPLICA,
        ((r.labels, r.seen.memory_limit_bytes) for r in replicas if r.seen.memory_limit_bytes is not None),
    )
    yield gauge(
        "servery_replica_requests_in_flight",
        "Requests a replica has accepted and not answered.",
        REPLICA,
        ((r.labels, r.seen.in_flight) for r in replicas),
    )
    restarts = CounterMetricFamily(
        "servery_replica_restarts", "Times the model's process of a replica was replaced.", labels=REPLICA
    )
    for replica in replicas:
        restarts.add_metric(list(replica.labels), replica.seen.restarts)
    yield restarts


def _batches(replicas: Iterable[_Replica]) -> Metric:
    family = Metric(
        "servery_replica_batch_size",
        "Requests answered, by how many were predicted together; the sum is at least what was predicted.",
        "histogram",
    )
    for replica in replicas:
        counts = replica.seen.batches
        if len(counts) != len(BOUNDS) + 1 or not any(counts):
            continue
        # Of each bucket only its bounds are known: counted as the smallest it can hold.
        least = (1.0, *(bound + 1 for bound in BOUNDS))
        total = sum(count * size for count, size in zip(counts, least, strict=True))
        add_histogram(family, dict(zip(REPLICA, replica.labels, strict=True)), BOUNDS, counts, total)
    return family
