"""Workers as they tell of themselves over NATS, and orders to them: what every backend needs, wherever workers run.

A worker says all it holds once a second and on every change. One that is silent for ``SUSPECT_SECONDS`` is not
counted on; one silent for ``LOST_SECONDS`` is taken for dead. When this controller itself has lost NATS, silence
proves nothing (``settled`` is False).
"""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta

import structlog

from servery_common.contracts import subjects
from servery_common.contracts.replicas import (
    Done,
    EnsureReplica,
    ReadReplicaLog,
    ReplicaLaunch,
    ReplicaLog,
    ReplicaObservation,
    StopReplica,
    WorkerHeartbeat,
)
from servery_common.contracts.states import ReplicaState
from servery_common.errors import NotFound, Unavailable
from servery_common.messaging.port import Bus
from servery_controller.compute.placement import WorkerView

log = structlog.get_logger()

SUSPECT_SECONDS = 3.0
LOST_SECONDS = 10.0
ORDER_SECONDS = 3.0
"""An order is answered at once by a living worker."""


class WorkerReports:
    """``clock`` returns monotonic seconds."""

    def __init__(self, bus: Bus, settle_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._bus = bus
        self._settle_seconds = settle_seconds
        self._clock = clock
        self._workers: dict[str, WorkerView] = {}
        self._listening_since = clock()
        self._on_change: list[Callable[[str], None]] = []
        self._on_heard: list[Callable[[WorkerView], None]] = []

    async def start(self) -> None:
        """Listen to heartbeats."""
        self._bus.on_reconnect(self._listen_again)
        await self._bus.on_signal(
            subjects.ALL_WORKER_HEARTBEATS, WorkerHeartbeat, self._heard, sender=_sender
        )

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Call ``callback(endpoint_id)`` when a replica of it changed or vanished."""
        self._on_change.append(callback)

    def on_heard(self, callback: Callable[[WorkerView], None]) -> None:
        """Call back with each worker that was heard, before ``on_change``."""
        self._on_heard.append(callback)

    @property
    def workers(self) -> Mapping[str, WorkerView]:
        """All that are not taken for dead, by id."""
        return self._workers

    @property
    def settled(self) -> bool:
        """Whether every living worker can be expected to have been heard."""
        return self._bus.connected and self._clock() - self._listening_since >= self._settle_seconds

    def heard_lately(self) -> Iterable[WorkerView]:
        """Return the workers that can be counted on."""
        heard_since = self._clock() - SUSPECT_SECONDS
        return [worker for worker in self._workers.values() if worker.heard_at >= heard_since]

    def ready_replicas(self) -> frozenset[str]:
        """Return the ids of replicas that said a moment ago that they take requests."""
        return frozenset(
            replica_id
            for worker in self.heard_lately()
            for replica_id, observed in worker.replicas.items()
            if observed.state is ReplicaState.READY
        )

    def replicas(self) -> dict[str, ReplicaObservation]:
        """Return all replicas that workers hold."""
        held: dict[str, ReplicaObservation] = {}
        for worker in self._workers.values():
            held.update(worker.replicas)
        return held

    def forget(self, worker_id: str) -> None:
        """A worker is known to have ended: nobody waits for its silence."""
        worker = self._workers.pop(worker_id, None)
        if worker is not None:
            self.tell(observed.endpoint_id for observed in worker.replicas.values())

    def forget_lost(self) -> None:
        """Take workers that have been silent for too long for dead, and hint at what they held."""
        now = self._clock()
        if not self._bus.connected:
            return
        for worker in [w for w in self._workers.values() if now - w.heard_at > LOST_SECONDS]:
            log.warning("worker_lost", worker_id=worker.worker_id, replicas=len(worker.replicas))
            self.forget(worker.worker_id)

    def tell(self, endpoint_ids: Iterable[str]) -> None:
        """Hint that something about these endpoints changed."""
        for endpoint_id in set(endpoint_ids):
            for callback in self._on_change:
                callback(endpoint_id)

    async def ensure(self, worker_id: str, launch: ReplicaLaunch) -> None:
        """Order a replica. Raises what the worker answers, or Unavailable."""
        order = EnsureReplica(launch=launch)
        await self._bus.request(subjects.worker_ensure(worker_id), order, Done, timeout=ORDER_SECONDS)

    async def stop(self, replica_id: str, grace: timedelta, epoch: int) -> None:
        """Tell every worker that shows the replica to stop it."""
        order = StopReplica(replica_id=replica_id, grace_seconds=grace.total_seconds(), epoch=epoch)
        for worker in list(self._workers.values()):
            if replica_id in worker.replicas:
                subject = subjects.worker_stop(worker.worker_id)
                await self._bus.request(subject, order, Done, timeout=ORDER_SECONDS)

    async def logs(self, replica_id: str, tail: int) -> str:
        """Ask every worker: a replica that is gone is no longer in a heartbeat."""
        order = ReadReplicaLog(replica_id=replica_id, tail=tail)
        for worker in sorted(self._workers.values(), key=lambda w: replica_id not in w.replicas):
            subject = subjects.worker_log(worker.worker_id)
            try:
                answer = await self._bus.request(subject, order, ReplicaLog, timeout=ORDER_SECONDS)
            except (NotFound, Unavailable):
                continue
            return answer.text
        return ""

    async def _heard(self, heartbeat: WorkerHeartbeat) -> None:
        before = self._workers.get(heartbeat.worker_id)
        after = WorkerView.of(heartbeat, heard_at=self._clock())
        self._workers[heartbeat.worker_id] = after
        if before is None:
            log.info("worker_joined", worker_id=heartbeat.worker_id, capacity_slots=heartbeat.capacity_slots)
        elif before.node != after.node:
            log.warning("worker_restarted", worker_id=heartbeat.worker_id)
        for callback in self._on_heard:
            callback(after)
        self.tell(_changed_endpoints(before.replicas if before else {}, after.replicas))

    def _listen_again(self) -> None:
        # Heartbeats were missed while NATS was away: hear everybody again before trusting an absence.
        self._listening_since = self._clock()
        for worker in self._workers.values():
            worker.heard_at = self._clock()


def _sender(heartbeat: WorkerHeartbeat) -> str:
    return heartbeat.worker_id


def _changed_endpoints(
    before: Mapping[str, ReplicaObservation], after: Mapping[str, ReplicaObservation]
) -> set[str]:
    changed: set[str] = set()
    for replica_id in before.keys() | after.keys():
        old, new = before.get(replica_id), after.get(replica_id)
        if old is None or new is None or (old.state, old.reason) != (new.state, new.reason):
            changed.update(o.endpoint_id for o in (old, new) if o is not None)
    return changed
