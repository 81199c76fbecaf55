"""Replicas as containers (docs/decisions/0025-containers-as-replicas.md). A node is one container.

The engine says which containers there are and why one has ended; the worker inside says over NATS how its replica is. A
container that has ended is shown as a FAILED replica for a while, longer each time the same served entity's do,
and then removed: its node is gone then, and another replica takes its place.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta

import docker.errors
import structlog

from servery_common.contracts.replicas import ReplicaLaunch, ReplicaObservation
from servery_common.contracts.states import ReplicaState
from servery_common.errors import ServeryError, Unavailable
from servery_common.service import wait_any
from servery_controller.compute.container_spec import Access, Machine, node_of
from servery_controller.compute.containers import Containers, SeenContainer
from servery_controller.compute.engine import Engine
from servery_controller.compute.placement import WorkerView
from servery_controller.compute.worker_reports import WorkerReports
from servery_controller.compute.workspace_networks import WorkspaceNetworks
from servery_controller.domain.capacity import Room
from servery_controller.domain.endpoint import Observation

log = structlog.get_logger()

LOOK_SECONDS = 2.0
FRESH_SECONDS = 10.0
"""What the engine said longer ago proves nothing."""
SILENT_SECONDS = 60.0
"""A container whose worker has not been heard for so long, from its start or since, does not work."""
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
FORGIVEN_SECONDS = 120.0
"""A served entity none of whose containers ended for so long begins with the first pause again."""
KEPT_LOGS = 50
STOP_MARGIN_SECONDS = 5.0


@dataclass(slots=True)
class _Deaths:
    """Of the containers of one served entity, in a row."""

    count: int
    last_at: float


class DockerBackend:
    """ComputeBackend over one engine. ``clock`` returns monotonic seconds."""

    def __init__(
        self,
        engine: Engine,
        containers: Containers,
        networks: WorkspaceNetworks,
        reports: WorkerReports,
        access: Callable[[str], Access],
        *,
        capacity_slots: int | None,
        slots_per_cpu: int = 32,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``access`` makes what a replica, by its id, gets into NATS with."""
        self._engine = engine
        self._containers = containers
        self._networks = networks
        self._reports = reports
        self._access = access
        self._capacity_slots = capacity_slots
        self._slots_per_cpu = slots_per_cpu
        self._clock = clock
        self._machine: Machine | None = None
        self._away = "The Docker engine was not asked yet."
        self._seen: Mapping[str, SeenContainer] = {}
        self._seen_at = float("-inf")
        self._first_seen: dict[str, float] = {}
        self._pending: dict[str, int] = {}
        """Replicas with a place whose container is not made yet, and their slots."""
        self._stopping: dict[str, float] = {}
        """Until when a replica that is stopped may finish."""
        self._ended_until: dict[str, float] = {}
        """How long a container that has ended is shown."""
        self._deaths: dict[str, _Deaths] = {}
        self._logs: OrderedDict[str, str] = OrderedDict()
        self._look_now = asyncio.Event()
        reports.on_heard(self._worker_heard)

    async def start(self) -> None:
        """Listen to workers and look at the engine once; one that is away is no reason not to start."""
        await self._reports.start()
        await self._look()

    async def run(self) -> None:
        """Follow the engine for ever."""
        while True:
            self._look_now.clear()
            await self._look()
            await self._act()
            await wait_any(self._look_now, LOOK_SECONDS)

    def place(self, replica_id: str, *, slots: int, environment_key: str) -> str:
        """See ComputeBackend."""
        if self._machine is None or not self._fresh:
            raise Unavailable(self._away)
        room = self.room(slots)
        if room.used + slots > room.slots:
            raise Unavailable(
                f"The machine has no room for another replica: all of its {room.slots} slots are taken. Delete an"
                " endpoint, or set SERVERY_CONTROLLER_DOCKER_CAPACITY_SLOTS."
            )
        self._pending[replica_id] = slots
        return node_of(replica_id)

    def forget_placement(self, replica_id: str) -> None:
        """See ComputeBackend."""
        self._pending.pop(replica_id, None)

    def room(self, slots: int) -> Room:
        """See ComputeBackend."""
        if self._machine is None or not self._fresh:
            return Room(0, 0)
        total = self._capacity_slots or self._machine.cpus * self._slots_per_cpu
        held = sum(1 for one in self._seen.values() if one.alive) + len(
            self._pending.keys() - self._seen.keys()
        )
        return Room(total // slots * slots, min(held, total // slots) * slots)

    def ready_replicas(self) -> Collection[str]:
        """See ComputeBackend."""
        return self._reports.ready_replicas()

    async def ensure(self, node: str, launch: ReplicaLaunch) -> None:
        """See ComputeBackend."""
        replica_id = launch.replica_id
        seen = self._seen.get(replica_id)
        if seen is not None and not seen.alive:
            return  # another one takes its place soon
        if seen is None:
            self._pending.setdefault(replica_id, launch.slots)
            machine = self._machine
            if machine is None:
                raise Unavailable(self._away)
            access = self._access(replica_id)
            try:
                await self._engine.call(
                    lambda client: self._containers.create(client, launch, access, machine)
                )
            except docker.errors.APIError as error:
                raise Unavailable(f"The engine did not start the container: {_said(error)}") from error
            self._look_now.set()
            return
        worker = self._reports.workers.get(replica_id)
        if worker is not None and replica_id not in worker.replicas:
            await self._reports.ensure(replica_id, launch)

    async def stop(self, replica_id: str, grace: timedelta, epoch: int) -> None:
        """See ComputeBackend. The container is removed once its worker holds the replica no more, or has none."""
        self._pending.pop(replica_id, None)
        until = self._clock() + grace.total_seconds() + STOP_MARGIN_SECONDS
        self._stopping.setdefault(replica_id, until)
        worker = self._reports.workers.get(replica_id)
        if worker is not None and replica_id in worker.replicas:
            await self._reports.stop(replica_id, grace, epoch)
        self._look_now.set()

    def observe(self) -> Observation:
        """See ComputeBackend."""
        replicas: dict[str, ReplicaObservation] = {}
        held = self._reports.replicas()
        for replica_id, seen in self._seen.items():
            if not seen.alive:
                replicas[replica_id] = _failed(seen, seen.reason)
            elif replica_id in held:
                replicas[replica_id] = held[replica_id]
            elif self._clock() - self._first_seen.get(replica_id, self._clock()) > SILENT_SECONDS:
                replicas[replica_id] = _failed(
                    seen,
                    f"The replica's container runs, but nothing was heard of it for {SILENT_SECONDS:.0f} s.",
                )
        return Observation(
            replicas=replicas,
            nodes=frozenset(node_of(replica_id) for replica_id in self._seen.keys() | self._pending.keys()),
            complete=self._reports.settled and self._fresh,
            builds={},
        )

    async def logs(self, replica_id: str, tail: int) -> str:
        """See ComputeBackend."""
        if replica_id in self._reports.workers:
            return await self._reports.logs(replica_id, tail)
        kept = self._logs.get(replica_id)
        if kept is None:
            try:
                kept = await self._engine.call(lambda client: self._containers.log(client, replica_id, tail))
            except (ServeryError, docker.errors.APIError):
                return ""
        return "".join(kept.splitlines(keepends=True)[-tail:])

    def on_change(self, callback: Callable[[str], None]) -> None:
        """See ComputeBackend."""
        self._reports.on_change(callback)

    @property
    def _fresh(self) -> bool:
        return self._clock() - self._seen_at < FRESH_SECONDS

    async def _look(self) -> None:
        """See what the engine has; an engine that is away leaves what was seen."""
        try:
            if self._machine is None:
                self._machine = await self._engine.call(self._containers.machine)
            seen = await self._engine.call(self._containers.list)
        except (ServeryError, docker.errors.APIError) as error:
            self._complain("engine_away", error)
            return
        before, self._seen, self._seen_at = self._seen, seen, self._clock()
        for replica_id in seen:
            self._first_seen.setdefault(replica_id, self._clock())
            self._pending.pop(replica_id, None)
        self._first_seen = {r: at for r, at in self._first_seen.items() if r in seen}
        for replica_id, one in seen.items():
            was = before.get(replica_id)
            if not one.alive and (was is None or was.alive):
                self._has_ended(one)
        changed = [one for r, one in {**before, **seen}.items() if before.get(r) != seen.get(r)]
        self._reports.tell(one.endpoint_id for one in changed)
        try:
            await self._engine.call(self._networks.repair)
        except (ServeryError, docker.errors.APIError) as error:
            self._complain("networks_not_repaired", error)  # what containers there are is known all the same

    def _complain(self, event: str, error: ServeryError | docker.errors.APIError) -> None:
        why = error.message if isinstance(error, ServeryError) else _said(error)
        if why != self._away:
            log.warning(event, reason=why)
        self._away = why

    def _has_ended(self, one: SeenContainer) -> None:
        now = self._clock()
        self._keep_log(one.replica_id, one.log)
        self._reports.forget(one.replica_id)
        deaths = self._deaths.get(one.served_entity_id)
        count = 1 if deaths is None or now - deaths.last_at > FORGIVEN_SECONDS else deaths.count + 1
        self._deaths[one.served_entity_id] = _Deaths(count, now)
        pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(count - 1, 16), LONGEST_PAUSE_SECONDS)
        self._ended_until[one.replica_id] = now + pause
        log.warning("container_ended", replica_id=one.replica_id, reason=one.reason, pause_seconds=pause)

    async def _act(self) -> None:
        """Remove containers whose time has come, and notice workers that fell silent."""
        self._reports.forget_lost()
        now = self._clock()
        held = self._reports.replicas()
        for replica_id, seen in list(self._seen.items()):
            until = self._stopping.get(replica_id)
            stopped = until is not None and (replica_id not in held or now > until)
            over = not seen.alive and now >= self._ended_until.get(replica_id, now)
            if stopped or over:
                await self._remove(replica_id, seen)
        self._stopping = {r: until for r, until in self._stopping.items() if r in self._seen}
        self._ended_until = {r: until for r, until in self._ended_until.items() if r in self._seen}
        self._deaths = {
            entity: deaths
            for entity, deaths in self._deaths.items()
            if now - deaths.last_at <= FORGIVEN_SECONDS
        }

    async def _remove(self, replica_id: str, seen: SeenContainer) -> None:
        try:
            lines = await self._engine.call(lambda client: self._containers.remove(client, replica_id))
        except (ServeryError, docker.errors.APIError) as error:
            log.warning("container_not_removed", replica_id=replica_id, reason=str(error))
            return
        self._keep_log(replica_id, lines or seen.log)
        self._seen = {r: one for r, one in self._seen.items() if r != replica_id}
        self._reports.forget(replica_id)
        self._reports.tell([seen.endpoint_id])
        log.info("container_removed", replica_id=replica_id)

    def _keep_log(self, replica_id: str, lines: str) -> None:
        if lines:
            self._logs[replica_id] = lines
            self._logs.move_to_end(replica_id)
            while len(self._logs) > KEPT_LOGS:
                self._logs.popitem(last=False)

    def _worker_heard(self, worker: WorkerView) -> None:
        """A container's worker is there: whoever waits to give it its replica, or to remove it, is told."""
        seen = self._seen.get(worker.worker_id)
        if seen is None:
            return
        self._first_seen[worker.worker_id] = self._clock()
        if not worker.replicas:
            if worker.worker_id in self._stopping:
                self._look_now.set()
            else:
                self._reports.tell([seen.endpoint_id])


def _failed(seen: SeenContainer, reason: str) -> ReplicaObservation:
    return ReplicaObservation(
        replica_id=seen.replica_id,
        endpoint_id=seen.endpoint_id,
        served_entity_id=seen.served_entity_id,
        state=ReplicaState.FAILED,
        reason=reason,
    )


def _said(error: docker.errors.APIError) -> str:
    return " ".join(str(error.explanation or error).split())[:300]
