from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.factories import observed
from tests.unit.controller.test_container_spec import launch

from servery_common.contracts import subjects
from servery_common.contracts.replicas import Done, EnsureReplica, StopReplica, WorkerHeartbeat
from servery_common.contracts.states import ReplicaState
from servery_common.errors import Unavailable
from servery_common.messaging.testing import InMemoryBus
from servery_common.workload_types import memory_of
from servery_controller.compute.container_spec import INCARNATION, Access, Machine, node_of
from servery_controller.compute.containers import SeenContainer
from servery_controller.compute.docker_backend import (
    FRESH_SECONDS,
    PENDING_SECONDS,
    SILENT_SECONDS,
    DockerBackend,
)
from servery_controller.compute.worker_reports import LOST_SECONDS, WorkerReports
from servery_controller.domain.capacity import Room


class Machinery:
    """An engine in memory: as much of the engine, the containers and the networks as the backend uses."""

    def __init__(self) -> None:
        self.now = 100.0
        self.away: str | None = None
        self.there: dict[str, SeenContainer] = {}
        self.created: list[str] = []
        self.removed: list[str] = []
        self.with_networks: Collection[str] | None = None

    async def call(self, what: Callable):
        if self.away:
            raise Unavailable(self.away)
        return what(None)

    def machine(self, _client) -> Machine:
        return Machine(cpus=1, memory_bytes=8 * 2**30)

    def list(self, _client) -> dict[str, SeenContainer]:
        return dict(self.there)

    def create(self, _client, asked, access, machine) -> None:
        self.created.append(asked.replica_id)
        self.there[asked.replica_id] = SeenContainer(
            asked.replica_id,
            asked.endpoint_id,
            asked.served_entity_id,
            True,
            memory_bytes=memory_of(asked.workload_type, machine.memory_bytes),
        )

    def remove(self, _client, replica_id: str) -> str:
        self.removed.append(replica_id)
        self.there.pop(replica_id, None)
        return "its last lines\n"

    def log(self, _client, replica_id: str, tail: int) -> str:
        return ""

    def reconcile(self, _client, replicas: Collection[str]) -> None:
        self.with_networks = replicas

    def end(self, replica_id: str, reason: str = "it was killed") -> None:
        self.there[replica_id] = replace(self.there[replica_id], alive=False, reason=reason, log="printed\n")


class Rig:
    def __init__(self, bus: InMemoryBus, memory_overcommit: float | None = None) -> None:
        self.bus = bus
        self.engine = Machinery()
        engine: Any = self.engine

        def clock() -> float:
            return self.engine.now

        self.backend = DockerBackend(
            engine,
            engine,
            engine,
            WorkerReports(bus, 2.5, clock),
            lambda _: Access("nats://nats:4222"),
            capacity_slots=8 if memory_overcommit is None else 80,
            memory_overcommit=memory_overcommit,
            clock=clock,
        )
        self.hints: list[str] = []
        self.backend.on_change(self.hints.append)
        self.orders: list[str] = []
        self.stops: list[str] = []

    async def start(self) -> None:
        await self.backend.start()
        self.engine.now += 2.5
        await self.turn()

    async def turn(self, seconds: float = 0.0) -> None:
        self.engine.now += seconds
        await self.backend._look()
        await self.backend._act()
        await self.backend._reconcile_networks()

    async def make(self, replica_id: str = "r1") -> None:
        """A replica with its container, its worker and its model."""
        asked = launch(replica_id=replica_id)
        node = self.backend.place(replica_id, slots=4, environment_key="k")
        await self.backend.ensure(node, asked)
        await self.turn()
        await self.beat(replica_id)
        await self.beat(replica_id, ReplicaState.READY)

    async def serve(self, worker_id: str) -> None:
        async def ensure(order: EnsureReplica) -> Done:
            self.orders.append(order.launch.replica_id)
            return Done()

        async def stop(order: StopReplica) -> Done:
            self.stops.append(order.replica_id)
            return Done()

        await self.bus.serve(subjects.worker_ensure(worker_id), EnsureReplica, ensure)
        await self.bus.serve(subjects.worker_stop(worker_id), StopReplica, stop)

    async def beat(self, replica_id: str, state: ReplicaState | None = None) -> None:
        held = () if state is None else (observed(replica_id, state),)
        heartbeat = WorkerHeartbeat(
            worker_id=replica_id, incarnation=INCARNATION, capacity_slots=4, replicas=held
        )
        await self.bus.signal(subjects.worker_heartbeat(replica_id), heartbeat)

    def state(self, replica_id: str = "r1") -> ReplicaState | None:
        seen = self.backend.observe().replicas.get(replica_id)
        return None if seen is None else seen.state


@pytest.fixture
async def rig() -> Rig:
    rig = Rig(InMemoryBus())
    await rig.start()
    return rig


async def test_a_container_is_made_once_and_given_its_replica_when_its_worker_is_there(rig: Rig):
    await rig.serve("r1")
    node = rig.backend.place("r1", slots=4, environment_key="k")
    assert node == node_of("r1")
    assert node in rig.backend.observe().nodes, "placed is not lost"
    for _ in range(2):
        await rig.backend.ensure(node, launch())
        await rig.turn()
    assert (rig.engine.created, rig.orders) == (["r1"], [])
    rig.hints.clear()
    await rig.beat("r1")
    assert rig.hints == ["e1"], "whoever waits is told"
    await rig.backend.ensure(node, launch())
    assert (rig.engine.created, rig.orders) == (["r1"], ["r1"])
    await rig.beat("r1", ReplicaState.READY)
    await rig.backend.ensure(node, launch())
    assert rig.orders == ["r1"]
    assert rig.state() is ReplicaState.READY


async def test_a_container_that_ended_is_shown_with_its_reason_and_then_its_node_is_gone(rig: Rig):
    await rig.make()
    rig.engine.end("r1", "it needed more than its 4 GiB")
    rig.hints.clear()
    await rig.turn()
    seen = rig.backend.observe()
    assert (seen.replicas["r1"].state, seen.replicas["r1"].reason) == (
        ReplicaState.FAILED,
        "it needed more than its 4 GiB",
    )
    assert rig.hints
    await rig.backend.ensure(node_of("r1"), launch())
    assert rig.engine.created == ["r1"], "a container has one life"
    await rig.turn(1.0)
    assert rig.engine.removed == ["r1"]
    assert node_of("r1") not in rig.backend.observe().nodes
    assert await rig.backend.logs("r1", 10) == "its last lines\n"


async def test_containers_that_end_again_and_again_wait_longer_each_time(rig: Rig):
    shown: list[float] = []
    for number in range(5):
        replica_id = f"r{number}"
        await rig.make(replica_id)
        rig.engine.end(replica_id)
        await rig.turn()
        began = rig.engine.now
        while replica_id in rig.engine.there:
            await rig.turn(0.5)
        shown.append(rig.engine.now - began)
    assert shown == [1.0, 2.0, 4.0, 8.0, 16.0]


async def test_a_stop_lets_the_worker_finish_before_the_container_goes(rig: Rig):
    await rig.make()
    await rig.serve("r1")
    await rig.backend.stop("r1", timedelta(seconds=60), epoch=1)
    assert rig.stops == ["r1"]
    for _ in range(30):
        await rig.beat("r1", ReplicaState.DRAINING)
        await rig.turn(1)
    assert rig.engine.removed == []
    await rig.beat("r1")
    await rig.turn()
    assert rig.engine.removed == ["r1"]
    assert rig.state() is None


async def test_a_stop_ends_after_its_grace_whatever_the_worker_says(rig: Rig):
    await rig.make()
    await rig.serve("r1")
    await rig.backend.stop("r1", timedelta(seconds=10), epoch=1)
    for _ in range(20):
        await rig.beat("r1", ReplicaState.DRAINING)
        await rig.turn(1)
    assert rig.engine.removed == ["r1"]


async def test_a_container_whose_worker_never_came_is_removed_at_once(rig: Rig):
    node = rig.backend.place("r1", slots=4, environment_key="k")
    await rig.backend.ensure(node, launch())
    await rig.turn()
    await rig.backend.stop("r1", timedelta(seconds=60), epoch=1)
    await rig.turn()
    assert rig.engine.removed == ["r1"]


async def test_a_container_that_stays_silent_is_failed(rig: Rig):
    node = rig.backend.place("r1", slots=4, environment_key="k")
    await rig.backend.ensure(node, launch())
    await rig.turn()
    assert rig.state() is None
    await rig.turn(SILENT_SECONDS + 1)
    assert rig.state() is ReplicaState.FAILED


async def test_containers_found_at_the_start_are_taken_over(rig: Rig):
    await rig.make()
    after = Rig(rig.bus)
    after.engine.there = dict(rig.engine.there)
    await after.start()
    await after.beat("r1", ReplicaState.READY)
    assert after.state() is ReplicaState.READY
    assert node_of("r1") in after.backend.observe().nodes
    assert after.engine.created == after.engine.removed == []


async def test_with_the_engine_away_nothing_is_taken_for_lost_and_what_serves_goes_on(rig: Rig):
    await rig.make()
    rig.engine.away = "The Docker engine does not answer: start it."
    await rig.turn(FRESH_SECONDS + 1)
    await rig.beat("r1", ReplicaState.READY)
    seen = rig.backend.observe()
    assert not seen.complete
    assert seen.replicas["r1"].state is ReplicaState.READY
    assert rig.backend.room(4) == Room(0, 0)
    with pytest.raises(Unavailable, match="start it"):
        rig.backend.place("r2", slots=4, environment_key="k")
    rig.engine.away = None
    await rig.turn(1)
    assert rig.backend.observe().complete
    assert rig.backend.place("r2", slots=4, environment_key="k") == node_of("r2")


async def test_no_more_is_placed_than_there_is_room_for(rig: Rig):
    await rig.make("r1")
    assert rig.backend.room(4) == Room(8, 4)
    rig.backend.place("r2", slots=4, environment_key="k")
    with pytest.raises(Unavailable, match="CAPACITY_SLOTS"):
        rig.backend.place("r3", slots=4, environment_key="k")
    rig.backend.forget_placement("r2")
    assert rig.backend.place("r3", slots=4, environment_key="k")


async def test_memory_is_promised_as_often_as_the_setting_says():
    rig = Rig(InMemoryBus(), memory_overcommit=1.5)  # of eight gigabytes
    await rig.start()
    await rig.make("r1")
    rig.backend.place("r2", slots=4, environment_key="k", workload_type="CPU")
    with pytest.raises(Unavailable, match=r"needs 7.2 GiB, and 4.0 of 12.0 GiB are free"):
        rig.backend.place("r3", slots=4, environment_key="k", workload_type="CPU_MEDIUM")
    rig.backend.place("r3", slots=4, environment_key="k", workload_type="CPU")
    with pytest.raises(Unavailable, match=r"needs 4.0 GiB, and 0.0 of 12.0 GiB are free"):
        rig.backend.place("r4", slots=4, environment_key="k", workload_type="CPU")
    rig.engine.end("r1")
    await rig.turn()
    assert rig.backend.place("r4", slots=4, environment_key="k"), "one that has ended holds none"


async def test_a_worker_that_fell_silent_shows_nothing_any_more(rig: Rig):
    await rig.make()
    await rig.turn(LOST_SECONDS + 1)
    assert rig.state() is None
    assert rig.backend.ready_replicas() == frozenset()


async def test_a_silent_container_is_given_up_and_its_node_goes(rig: Rig):
    node = rig.backend.place("r1", slots=4, environment_key="k")
    await rig.backend.ensure(node, launch())
    await rig.turn()
    await rig.turn(SILENT_SECONDS + 1)
    assert rig.state() is ReplicaState.FAILED
    await rig.turn(2)
    assert rig.engine.removed == ["r1"]
    assert node not in rig.backend.observe().nodes


async def test_silence_while_this_controller_heard_nobody_counts_for_nothing(rig: Rig):
    await rig.make()
    rig.bus.fail()
    for _ in range(10):
        await rig.turn(SILENT_SECONDS / 5)
    rig.bus.fail(False)
    await rig.turn(5)
    assert rig.engine.there
    assert "r1" not in rig.engine.removed


async def test_a_container_that_was_made_and_not_started_is_started(rig: Rig):
    rig.backend.place("r1", slots=4, environment_key="k")
    rig.engine.there["r1"] = SeenContainer("r1", "e1", "s1", alive=True, started=False)
    await rig.turn()
    await rig.backend.ensure(node_of("r1"), launch())
    assert rig.engine.created == ["r1"]


async def test_one_that_is_unwanted_before_its_worker_has_it_is_seen_to_wait(rig: Rig):
    node = rig.backend.place("r1", slots=4, environment_key="k")
    await rig.backend.ensure(node, launch())
    await rig.turn()
    assert rig.backend.observe().waiting == {"r1"}
    await rig.beat("r1", ReplicaState.STARTING)
    assert rig.backend.observe().waiting == frozenset()


async def test_a_place_nobody_asks_for_any_more_is_free_again(rig: Rig):
    for name in ("r1", "r2"):
        rig.backend.place(name, slots=4, environment_key="k")
    assert rig.backend.room(4) == Room(8, 8)
    await rig.turn(PENDING_SECONDS + 1)
    assert rig.backend.room(4) == Room(8, 0)


async def test_what_a_worker_says_of_other_replicas_is_ignored(rig: Rig):
    await rig.make("r1")
    rig.backend.place("r2", slots=4, environment_key="k")
    await rig.backend.ensure(node_of("r2"), launch(replica_id="r2"))
    await rig.turn()
    lies = (observed("r1", ReplicaState.FAILED), observed("r2", ReplicaState.READY, entity_id="not mine"))
    heartbeat = WorkerHeartbeat(worker_id="r2", incarnation=INCARNATION, capacity_slots=4, replicas=lies)
    await rig.bus.signal(subjects.worker_heartbeat("r2"), heartbeat)
    seen = rig.backend.observe().replicas
    assert seen["r1"].state is ReplicaState.READY
    assert (seen["r2"].endpoint_id, seen["r2"].served_entity_id) == ("e1", "s1")


async def test_a_replica_never_gets_a_second_container(rig: Rig):
    await rig.make()
    rig.engine.end("r1")
    await rig.turn()
    await rig.turn(2)
    assert rig.engine.removed == ["r1"]
    await rig.backend.ensure(node_of("r1"), launch())
    assert rig.engine.created == ["r1"]


async def test_a_network_is_kept_as_long_as_its_replica_has_a_container(rig: Rig):
    await rig.make()
    assert rig.engine.with_networks == {"r1"}
    rig.engine.end("r1")
    await rig.turn()
    assert rig.engine.with_networks == {"r1"}, "it has ended, and is shown"
    await rig.turn(2)
    assert rig.engine.with_networks == set()


async def test_no_network_is_removed_while_nobody_knows_who_has_a_container(rig: Rig):
    await rig.make()
    rig.engine.with_networks = None
    rig.engine.away = "The engine is away."
    await rig.turn(FRESH_SECONDS + 1)
    rig.engine.away = None
    await rig.backend._reconcile_networks()
    assert rig.engine.with_networks is None


async def test_networks_that_cannot_be_reconciled_hide_no_death(rig: Rig):
    await rig.make()

    def fails(_client, replicas: Collection[str]) -> None:
        raise Unavailable("NATS is away")

    rig.engine.reconcile = fails
    rig.engine.end("r1")
    await rig.turn()
    assert rig.state() is ReplicaState.FAILED
    assert rig.backend.observe().complete


async def test_only_a_replica_whose_container_lives_is_one_that_runs(rig: Rig):
    await rig.make()
    assert rig.backend.runs("r1")
    assert not rig.backend.runs("r2")
    await rig.serve("r1")
    await rig.backend.stop("r1", timedelta(seconds=30), epoch=0)
    assert rig.backend.runs("r1"), "what it still works on may take longer than its credentials"
    rig.engine.end("r1")
    await rig.turn()
    assert not rig.backend.runs("r1")


async def test_nobody_is_said_not_to_run_by_a_controller_that_cannot_see(rig: Rig):
    await rig.make()
    rig.engine.away = "The engine is away."
    await rig.turn(FRESH_SECONDS + 1)
    assert rig.backend.runs("r1")
    with pytest.raises(Unavailable):
        rig.backend.runs("r2")
