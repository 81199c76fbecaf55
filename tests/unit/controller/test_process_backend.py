import pytest
from tests.factories import observed

from servery_common.contracts import subjects
from servery_common.contracts.replicas import WorkerHeartbeat
from servery_common.errors import Unavailable
from servery_common.messaging.testing import InMemoryBus
from servery_controller.compute.process import ProcessBackend
from servery_controller.compute.worker_reports import LOST_SECONDS, SUSPECT_SECONDS
from servery_controller.domain.capacity import Room


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def bus() -> InMemoryBus:
    return InMemoryBus()


@pytest.fixture
async def backend(bus: InMemoryBus, clock: Clock) -> ProcessBackend:
    backend = ProcessBackend(bus, settle_seconds=2.5, clock=clock)
    await backend.start()
    return backend


async def beat(bus: InMemoryBus, worker_id: str, *replica_ids: str) -> None:
    heartbeat = WorkerHeartbeat(
        worker_id=worker_id,
        incarnation="i",
        capacity_slots=4,
        replicas=tuple(observed(r) for r in replica_ids),
    )
    await bus.signal(subjects.worker_heartbeat(worker_id), heartbeat)


async def test_absence_counts_only_after_every_worker_had_time_to_report(
    backend: ProcessBackend, clock: Clock
):
    assert not backend.observe().complete
    clock.now += 2.5
    assert backend.observe().complete


async def test_the_loss_of_a_worker_hints_at_what_it_held(
    backend: ProcessBackend, bus: InMemoryBus, clock: Clock
):
    hints: list[str] = []
    await beat(bus, "w1", "r1")
    backend.on_change(hints.append)
    clock.now += LOST_SECONDS
    backend.forget_lost()
    assert (hints, backend.observe().nodes) == ([], {"w1/i"})
    clock.now += 0.1
    backend.forget_lost()
    assert (hints, backend.observe().nodes) == (["ep1"], frozenset())
    with pytest.raises(Unavailable, match="No worker is connected"):
        backend.place("r2", slots=4, environment_key="k1")


async def test_a_change_of_a_replica_hints_at_its_endpoint_once(backend: ProcessBackend, bus: InMemoryBus):
    hints: list[str] = []
    backend.on_change(hints.append)
    await beat(bus, "w1", "r1")
    await beat(bus, "w1", "r1")
    await beat(bus, "w1")
    assert hints == ["ep1", "ep1"]


async def test_a_replica_that_was_seen_and_went_leaves_its_room_at_once(
    backend: ProcessBackend, bus: InMemoryBus
):
    await beat(bus, "w1")
    assert backend.room(4) == Room(4, 0)
    node = backend.place("r1", slots=4, environment_key="k")
    assert backend.room(4) == Room(4, 4)
    await beat(bus, "w1", "r1")
    assert backend.room(4) == Room(4, 4)
    await beat(bus, "w1")
    assert backend.room(4) == Room(4, 0)
    assert backend.place("r2", slots=4, environment_key="k") == node


async def test_workers_that_were_not_heard_of_just_now_have_no_room(
    backend: ProcessBackend, bus: InMemoryBus, clock: Clock
):
    await beat(bus, "w1")
    clock.now += 2 * SUSPECT_SECONDS
    await beat(bus, "w2")
    assert backend.room(4) == Room(4, 0)


async def test_placements_take_room_before_a_heartbeat_shows_them(backend: ProcessBackend, bus: InMemoryBus):
    await beat(bus, "w1")
    assert backend.place("r1", slots=4, environment_key="k1") == "w1/i"
    with pytest.raises(Unavailable, match="No worker has room"):
        backend.place("r2", slots=4, environment_key="k1")
