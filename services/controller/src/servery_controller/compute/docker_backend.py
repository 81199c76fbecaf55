"""Replicas as containers (docs/decisions/0025-containers-as-replicas.md). A node is one container.

The engine says which containers there are and why one has ended; the worker inside says over NATS how its replica is. A
container that has ended is shown as a FAILED replica for a while, longer each time the same served entity's do,
and then removed: its node is gone then, and another replica takes its place.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

import docker.errors
import structlog

from servery_common.contracts.replicas import ReplicaLaunch, ReplicaObservation
from servery_common.contracts.states import ReplicaState
from servery_common.docker_engine import Engine
from servery_common.errors import ServeryError, Unavailable
from servery_common.service import wait_any
from servery_common.workload_types import GIB, memory_of
from servery_controller.compute.container_spec import Access, Machine, node_of
from servery_controller.compute.containers import Containers, SeenContainer
from servery_controller.compute.placement import WorkerView
from servery_controller.compute.replica_networks import ReplicaNetworks
from servery_controller.compute.worker_reports import WorkerReports
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
PENDING_SECONDS = 30.0
"""A place that nobody asked for again for so long is free again: each step asks for what is missing."""
REMEMBERED = 10_000
STOP_MARGIN_SECONDS = 5.0


@dataclass(slots=True)
class _Deaths:
    """Of the containers of one served entity, in a row."""

    count: int
    last_at: float


@dataclass(slots=True)
class _Pending:
    """A place that was given, and the container is not made yet."""

    asked_at: float
    """When somebody last wanted it."""
    memory_bytes: int


class DockerBackend:
    """ComputeBackend over one engine. ``clock`` returns monotonic seconds."""

    def __init__(
        self,
        engine: Engine,
        containers: Containers,
        networks: ReplicaNetworks,
        reports: WorkerReports,
        access: Callable[[str], Access],
        *,
        capacity_slots: int | None,
        memory_overcommit: float | None = None,
        slots_per_cpu: int = 32,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``access`` makes what a replica, by its id, gets into NATS with.

        Limits of memory are counted only with ``memory_overcommit``: so many times the machine's may be promised.
        """
        self._engine = engine
        self._containers = containers
        self._networks = networks
        self._reports = reports
        self._access = access
        self._capacity_slots = capacity_slots
        self._memory_overcommit = memory_overcommit
        self._slots_per_cpu = slots_per_cpu
        self._clock = clock
        self._machine: Machine | None = None
        self._away = "The Docker engine was not asked yet."
        self._seen: Mapping[str, SeenContainer] = {}
        self._seen_at = float("-inf")
        self._heard_at: dict[str, float] = {}
        """When a container's worker was last heard; before the first time, when the container was first seen."""
        self._pending: dict[str, _Pending] = {}
        """By replica id."""
        self._over: OrderedDict[str, None] = OrderedDict()
        """Replicas that had a container: they never get another one."""
        self._ended: dict[str, SeenContainer] = {}
        """Containers that have ended or are given up, and why."""
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
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_containers(), name="containers")
            # By themselves: after NATS was replaced it takes longer to connect it to hundreds than a look may be old.
            tasks.create_task(self._follow_networks(), name="networks of replicas")

    async def _follow_containers(self) -> None:
        while True:
            self._look_now.clear()
            await self._look()
            await self._act()
            await wait_any(self._look_now, LOOK_SECONDS)

    async def _follow_networks(self) -> None:
        while True:
            await self._reconcile_networks()
            await asyncio.sleep(LOOK_SECONDS)

    def place(self, replica_id: str, *, slots: int, environment_key: str, workload_type: str = "CPU") -> str:
        """See ComputeBackend."""
        if self._machine is None or not self._fresh:
            raise Unavailable(self._away)
        room = self.room(slots)
        if room.used + slots > room.slots:
            raise Unavailable(
                f"The machine has no room for another replica: all of its {room.slots} slots are taken. Delete an"
                " endpoint, or set SERVERY_CONTROLLER_DOCKER_CAPACITY_SLOTS."
            )
        memory = memory_of(workload_type, self._machine.memory_bytes)
        self._check_memory(self._machine, memory)
        self._pending[replica_id] = _Pending(self._clock(), memory)
        return node_of(replica_id)

    def _check_memory(self, machine: Machine, needed: int) -> None:
        """Raise Unavailable when the limits of all replicas together would be more than may be promised."""
        if self._memory_overcommit is None:
            return
        promised = int(machine.memory_bytes * self._memory_overcommit)
        held = sum(seen.memory_bytes for r, seen in self._seen.items() if r not in self._ended)
        held += sum(pending.memory_bytes for r, pending in self._pending.items() if r not in self._seen)
        if held + needed <= promised:
            return
        free = max(0, promised - held)
        raise Unavailable(
            f"The machine has no memory for another replica: it needs {needed / GIB:.1f} GiB, and {free / GIB:.1f} of"
            f" {promised / GIB:.1f} GiB are free. Delete an endpoint, choose a smaller workload_type, or raise"
            " SERVERY_CONTROLLER_DOCKER_MEMORY_OVERCOMMIT."
        )

    def forget_placement(self, replica_id: str) -> None:
        """See ComputeBackend."""
        self._pending.pop(replica_id, None)

    def room(self, slots: int) -> Room:
        """See ComputeBackend."""
        if self._machine is None or not self._fresh:
            return Room(0, 0)
        total = self._capacity_slots or self._machine.cpus * self._slots_per_cpu
        held = len(self._seen.keys() - self._ended.keys()) + len(self._pending.keys() - self._seen.keys())
        return Room(total // slots * slots, min(held, total // slots) * slots)

    def ready_replicas(self) -> Collection[str]:
        """See ComputeBackend."""
        return {
            worker.worker_id
            for worker in self._reports.heard_lately()
            if (told := worker.replicas.get(worker.worker_id)) is not None
            and told.state is ReplicaState.READY
        }

    def runs(self, replica_id: str) -> bool:
        """Return whether the engine has a living container of this replica. Raises Unavailable when it is not known."""
        seen = self._seen.get(replica_id)
        if seen is not None:
            return seen.alive and replica_id not in self._ended
        if not self._fresh:
            raise Unavailable(self._away or "The Docker engine was not asked for a while.")
        return False

    async def ensure(self, node: str, launch: ReplicaLaunch) -> None:
        """See ComputeBackend."""
        replica_id = launch.replica_id
        seen = self._seen.get(replica_id)
        if replica_id in self._ended or (seen is None and replica_id in self._over):
            return  # another one takes its place soon
        if seen is None or not seen.started:
            await self._make(launch)
            return
        worker = self._reports.workers.get(replica_id)
        if worker is not None and replica_id not in worker.replicas:
            await self._reports.ensure(replica_id, launch)

    async def _make(self, launch: ReplicaLaunch) -> None:
        if self._machine is None:
            raise Unavailable(self._away)
        machine = self._machine
        memory = memory_of(launch.workload_type, machine.memory_bytes)
        self._pending[launch.replica_id] = _Pending(self._clock(), memory)
        try:
            access = self._access(launch.replica_id)
            await self._engine.call(lambda client: self._containers.create(client, launch, access, machine))
        except docker.errors.APIError as error:
            if (
                launch.replica_id in self._over
            ):  # it was removed, half-made, and another replica takes its place
                self._pending.pop(launch.replica_id, None)
                self._look_now.set()
            raise Unavailable(f"The engine did not start the container: {_said(error)}") from error
        except OSError as error:
            raise Unavailable(f"There are no credentials for replicas yet: {error}") from error
        self._look_now.set()

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
        waiting: set[str] = set()
        for replica_id, seen in self._seen.items():
            ended = self._ended.get(replica_id)
            if ended is not None:
                replicas[replica_id] = _failed(ended)
            elif (told := self._held(seen)) is not None:
                replicas[replica_id] = told
            else:
                waiting.add(replica_id)
        return Observation(
            replicas=replicas,
            nodes=frozenset(node_of(replica_id) for replica_id in self._seen.keys() | self._pending.keys()),
            complete=self._reports.settled and self._fresh,
            builds={},
            waiting=frozenset(waiting),
        )

    def _held(self, seen: SeenContainer) -> ReplicaObservation | None:
        """What the worker in a container tells of its replica. What else it tells is not its business."""
        worker = self._reports.workers.get(seen.replica_id)
        told = None if worker is None else worker.replicas.get(seen.replica_id)
        if told is None:
            return None
        return told.model_copy(
            update={"endpoint_id": seen.endpoint_id, "served_entity_id": seen.served_entity_id}
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
            self._is_away(error)
            return
        self._away = ""
        self._take_over(seen)

    async def _reconcile_networks(self) -> None:
        if not self._fresh:  # who has a container is not known
            return
        replicas = frozenset(self._seen)
        try:
            await self._engine.call(lambda client: self._networks.reconcile(client, replicas))
        except (ServeryError, docker.errors.APIError) as error:
            log.warning("networks_not_reconciled", reason=str(error))

    def _is_away(self, error: ServeryError | docker.errors.APIError) -> None:
        why = error.message if isinstance(error, ServeryError) else _said(error)
        if why != self._away:
            log.warning("engine_away", reason=why)
        self._away = why

    def _take_over(self, seen: Mapping[str, SeenContainer]) -> None:
        now = self._clock()
        before, self._seen, self._seen_at = self._seen, seen, now
        self._heard_at = {r: self._heard_at.get(r, now) for r in seen}
        self._pending = {
            r: pending
            for r, pending in self._pending.items()
            if r not in seen and now - pending.asked_at < PENDING_SECONDS
        }
        for replica_id, one in seen.items():
            self._over[replica_id] = None
            if not one.alive and replica_id not in self._ended:
                self._has_ended(one)
        while len(self._over) > REMEMBERED:
            self._over.popitem(last=False)
        self._ended = {r: one for r, one in self._ended.items() if r in seen}
        changed = [one for r, one in {**before, **seen}.items() if before.get(r) != seen.get(r)]
        self._reports.tell(one.endpoint_id for one in changed)

    def _give_up_silent(self) -> None:
        """A container whose worker is not heard, though others could be, is as good as ended."""
        if not self._reports.settled:
            # Nobody is heard: from when they can be again, they have their time.
            self._heard_at = dict.fromkeys(self._heard_at, self._clock())
            return
        for replica_id, at in self._heard_at.items():
            if self._clock() - at > SILENT_SECONDS and replica_id not in self._ended:
                reason = (
                    f"The replica's container runs, but nothing was heard of it for {SILENT_SECONDS:.0f} s."
                )
                self._has_ended(replace(self._seen[replica_id], alive=False, reason=reason))
                self._reports.tell([self._seen[replica_id].endpoint_id])

    def _has_ended(self, one: SeenContainer) -> None:
        now = self._clock()
        self._ended[one.replica_id] = one
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
        self._give_up_silent()
        now = self._clock()
        for replica_id, seen in list(self._seen.items()):
            until = self._stopping.get(replica_id)
            stopped = until is not None and (self._held(seen) is None or now > until)
            over = replica_id in self._ended and now >= self._ended_until.get(replica_id, now)
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
        self._ended.pop(replica_id, None)
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
        self._heard_at[worker.worker_id] = self._clock()
        if not worker.replicas:
            if worker.worker_id in self._stopping:
                self._look_now.set()
            else:
                self._reports.tell([seen.endpoint_id])


def _failed(ended: SeenContainer) -> ReplicaObservation:
    return ReplicaObservation(
        replica_id=ended.replica_id,
        endpoint_id=ended.endpoint_id,
        served_entity_id=ended.served_entity_id,
        state=ReplicaState.FAILED,
        reason=ended.reason,
    )


def _said(error: docker.errors.APIError) -> str:
    return " ".join(str(error.explanation or error).split())[:300]
