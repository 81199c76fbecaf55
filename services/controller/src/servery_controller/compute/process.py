"""Replicas as processes on worker machines. A node is one life of a worker."""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

from servery_common.contracts.replicas import ReplicaLaunch
from servery_common.errors import Unavailable
from servery_common.messaging.port import Bus
from servery_controller.compute.placement import WorkerView, choose_worker, room_for, worker_of
from servery_controller.compute.worker_reports import SUSPECT_SECONDS, WorkerReports
from servery_controller.domain.capacity import Room
from servery_controller.domain.endpoint import Observation

PLACEMENT_MEMORY_SECONDS = 10.0
"""How long a placement counts against a worker's room before a heartbeat has to show the replica."""


class ProcessBackend:
    """ComputeBackend over workers. ``clock`` returns monotonic seconds."""

    def __init__(self, bus: Bus, settle_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reports = WorkerReports(bus, settle_seconds, clock)
        self._reports.on_heard(self._note)
        self._placed: dict[str, tuple[str, float]] = {}

    async def start(self) -> None:
        """Listen to heartbeats."""
        await self._reports.start()

    async def run(self) -> None:
        """Notice workers that fell silent, for ever."""
        while True:
            await asyncio.sleep(1.0)
            self._reports.forget_lost()

    def forget_lost(self) -> None:
        """See WorkerReports."""
        self._reports.forget_lost()

    def place(self, replica_id: str, *, slots: int, environment_key: str, workload_type: str = "CPU") -> str:
        """See ComputeBackend. Prefers a worker with a warm parent for the environment."""
        workers = self._reports.workers
        node = choose_worker(
            workers.values(),
            self._placements(),
            slots=slots,
            environment_key=environment_key,
            heard_since=self._clock() - SUSPECT_SECONDS,
        )
        if node is None:
            raise Unavailable(
                "No worker has room for another replica. Start another worker, or delete an endpoint."
                if workers
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
        workers = self._reports.workers.values()
        return room_for(workers, self._placements(), slots=slots, heard_since=heard_since)

    def ready_replicas(self) -> frozenset[str]:
        """See ComputeBackend."""
        return self._reports.ready_replicas()

    async def ensure(self, node: str, launch: ReplicaLaunch) -> None:
        """See ComputeBackend."""
        await self._reports.ensure(worker_of(node), launch)

    async def stop(self, replica_id: str, grace: timedelta, epoch: int) -> None:
        """See ComputeBackend. Every worker that shows the replica is told."""
        await self._reports.stop(replica_id, grace, epoch)

    def observe(self) -> Observation:
        """See ComputeBackend."""
        return Observation(
            replicas=self._reports.replicas(),
            nodes=frozenset(worker.node for worker in self._reports.workers.values()),
            complete=self._reports.settled,
            builds={},
        )

    async def logs(self, replica_id: str, tail: int) -> str:
        """See ComputeBackend."""
        return await self._reports.logs(replica_id, tail)

    def on_change(self, callback: Callable[[str], None]) -> None:
        """See ComputeBackend."""
        self._reports.on_change(callback)

    def _note(self, worker: WorkerView) -> None:
        for replica_id in worker.replicas:
            self._placed.pop(replica_id, None)  # from now on its absence means that its room is free again

    def _placements(self) -> Mapping[str, str]:
        """Placements too young to show in a heartbeat: replica id -> node."""
        oldest = self._clock() - PLACEMENT_MEMORY_SECONDS
        self._placed = {r: placed for r, placed in self._placed.items() if placed[1] >= oldest}
        return {replica_id: node for replica_id, (node, _) in self._placed.items()}
