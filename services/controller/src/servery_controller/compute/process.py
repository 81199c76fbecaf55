"""Replicas as processes on worker machines, ordered over NATS, observed through heartbeats.

A node is one life of a worker. It says all it holds once a second and on every change. One that is silent for
``SUSPECT_SECONDS`` is not given new replicas; one silent for ``LOST_SECONDS`` is taken for dead. When this
controller itself has lost NATS, silence proves nothing and ``observe`` says so (``complete`` is False).
"""

import asyncio
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
from servery_controller.compute.placement import WorkerView, choose_worker, room_for, worker_of
from servery_controller.domain.capacity import Room
from servery_controller.domain.endpoint import Observation

log = structlog.get_logger()

SUSPECT_SECONDS = 3.0
LOST_SECONDS = 10.0
ORDER_SECONDS = 3.0
"""An order is answered at once by a living worker."""
PLACEMENT_MEMORY_SECONDS = 10.0
"""How long a placement counts against a worker's room before a heartbeat has to show the replica."""


class ProcessBackend:
    """ComputeBackend over workers. ``clock`` returns monotonic seconds."""

    def __init__(self, bus: Bus, settle_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._bus = bus
        self._settle_seconds = settle_seconds
        self._clock = clock
        self._workers: dict[str, WorkerView] = {}
        self._placed: dict[str, tuple[str, float]] = {}
        self._listening_since = clock()
        self._callbacks: list[Callable[[str], None]] = []

    async def start(self) -> None:
        """Listen to heartbeats."""
        self._bus.on_reconnect(self._listen_again)
        await self._bus.on_signal(subjects.ALL_WORKER_HEARTBEATS, WorkerHeartbeat, self._heard)

    async def run(self) -> None:
        """Notice workers that fell silent, for ever."""
        while True:
            await asyncio.sleep(1.0)
            self.forget_lost()

    def forget_lost(self) -> None:
        """Take workers that have been silent for too long for dead, and hint at what they held."""
        now = self._clock()
        if not self._bus.connected:
            return
        for worker in [w for w in self._workers.values() if now - w.heard_at > LOST_SECONDS]:
            del self._workers[worker.worker_id]
            log.warning("worker_lost", worker_id=worker.worker_id, replicas=len(worker.replicas))
            self._changed(observed.endpoint_id for observed in worker.replicas.values())

    def place(self, replica_id: str, *, slots: int, environment_key: str) -> str:
        """See ComputeBackend. Prefers a worker with a warm parent for the environment."""
        node = choose_worker(
            self._workers.values(),
            self._placements(),
            slots=slots,
            environment_key=environment_key,
            heard_since=self._clock() - SUSPECT_SECONDS,
        )
        if node is None:
            raise Unavailable(
                "No worker has room for another replica. Start another worker, or delete an endpoint."
                if self._workers
                else "No worker is connected. Start one (servery status shows the services)."
            )
        self._placed[replica_id] = (node, self._clock())
        return node

    def forget_placement(self, replica_id: str) -> None:
        """See ComputeBackend."""
        self._placed.pop(replica_id, None)

    def room(self, slots: int) -> Room:
        """See ComputeBackend. Workers that were not heard of just now have none."""
        heard_since = self._clock() - SUSPECT_SECONDS
        return room_for(self._workers.values(), self._placements(), slots=slots, heard_since=heard_since)

    def ready_replicas(self) -> frozenset[str]:
        """See ComputeBackend."""
        heard_since = self._clock() - SUSPECT_SECONDS
        return frozenset(
            replica_id
            for worker in self._workers.values()
            if worker.heard_at >= heard_since
            for replica_id, observed in worker.replicas.items()
            if observed.state is ReplicaState.READY
        )

    async def ensure(self, node: str, launch: ReplicaLaunch) -> None:
        """See ComputeBackend."""
        order = EnsureReplica(launch=launch)
        await self._bus.request(subjects.worker_ensure(worker_of(node)), order, Done, timeout=ORDER_SECONDS)

    async def stop(self, replica_id: str, grace: timedelta, epoch: int) -> None:
        """See ComputeBackend. Every worker that shows the replica is told."""
        order = StopReplica(replica_id=replica_id, grace_seconds=grace.total_seconds(), epoch=epoch)
        for worker in list(self._workers.values()):
            if replica_id in worker.replicas:
                subject = subjects.worker_stop(worker.worker_id)
                await self._bus.request(subject, order, Done, timeout=ORDER_SECONDS)

    def observe(self) -> Observation:
        """See ComputeBackend."""
        replicas: dict[str, ReplicaObservation] = {}
        for worker in self._workers.values():
            replicas.update(worker.replicas)
        settled = self._bus.connected and self._clock() - self._listening_since >= self._settle_seconds
        return Observation(
            replicas=replicas,
            nodes=frozenset(worker.node for worker in self._workers.values()),
            complete=settled,
            builds={},
        )

    async def logs(self, replica_id: str, tail: int) -> str:
        """See ComputeBackend. Asks every worker: a replica that is gone is no longer in a heartbeat."""
        order = ReadReplicaLog(replica_id=replica_id, tail=tail)
        for worker in sorted(self._workers.values(), key=lambda w: replica_id not in w.replicas):
            subject = subjects.worker_log(worker.worker_id)
            try:
                answer = await self._bus.request(subject, order, ReplicaLog, timeout=ORDER_SECONDS)
            except (NotFound, Unavailable):
                continue
            return answer.text
        return ""

    def on_change(self, callback: Callable[[str], None]) -> None:
        """See ComputeBackend."""
        self._callbacks.append(callback)

    async def _heard(self, heartbeat: WorkerHeartbeat) -> None:
        before = self._workers.get(heartbeat.worker_id)
        after = WorkerView.of(heartbeat, heard_at=self._clock())
        self._workers[heartbeat.worker_id] = after
        for replica_id in after.replicas:
            self._placed.pop(replica_id, None)  # from now on its absence means that its room is free again
        if before is None:
            log.info("worker_joined", worker_id=heartbeat.worker_id, capacity_slots=heartbeat.capacity_slots)
        elif before.node != after.node:
            log.warning("worker_restarted", worker_id=heartbeat.worker_id)
        self._changed(_changed_endpoints(before.replicas if before else {}, after.replicas))

    def _changed(self, endpoint_ids: Iterable[str]) -> None:
        for endpoint_id in set(endpoint_ids):
            for callback in self._callbacks:
                callback(endpoint_id)

    def _placements(self) -> Mapping[str, str]:
        """Placements too young to show in a heartbeat: replica id -> node."""
        oldest = self._clock() - PLACEMENT_MEMORY_SECONDS
        self._placed = {r: placed for r, placed in self._placed.items() if placed[1] >= oldest}
        return {replica_id: node for replica_id, (node, _) in self._placed.items()}

    def _listen_again(self) -> None:
        # Heartbeats were missed while NATS was away: hear everybody again before trusting an absence.
        self._listening_since = self._clock()
        for worker in self._workers.values():
            worker.heard_at = self._clock()


def _changed_endpoints(
    before: Mapping[str, ReplicaObservation], after: Mapping[str, ReplicaObservation]
) -> set[str]:
    changed: set[str] = set()
    for replica_id in before.keys() | after.keys():
        old, new = before.get(replica_id), after.get(replica_id)
        if old is None or new is None or (old.state, old.reason) != (new.state, new.reason):
            changed.update(o.endpoint_id for o in (old, new) if o is not None)
    return changed
