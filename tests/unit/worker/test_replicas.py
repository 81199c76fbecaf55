import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from servery_common.contracts.builds import Artifacts
from servery_common.contracts.replicas import EnsureReplica, ReplicaLaunch, ReplicaObservation, StopReplica
from servery_common.contracts.states import ReplicaState
from servery_common.errors import Conflict, ResourceExhausted, Unavailable
from servery_worker.model_log import ModelLog
from servery_worker.replicas import Replicas


class FakeReplica:
    """Runs until it is stopped; nothing else happens in it."""

    def __init__(self, launch: ReplicaLaunch) -> None:
        self.launch = launch
        self.state = ReplicaState.READY
        self.log = ModelLog()
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        await self._stopped.wait()
        self.state = ReplicaState.STOPPED

    def order_again(self) -> None:
        return None

    def drain(self) -> None:
        self.state = ReplicaState.DRAINING

    async def finished(self, grace: float) -> None:
        return None

    def stop(self) -> None:
        self._stopped.set()

    def observe(self) -> ReplicaObservation:
        return ReplicaObservation(
            replica_id=self.launch.replica_id, endpoint_id="e1", served_entity_id="s1", state=self.state
        )


def spawn(name: str, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[Any]:
    return asyncio.create_task(coroutine, name=name)


@pytest.fixture
async def replicas() -> Replicas:
    make: Callable[..., Any] = lambda launch, on_change: FakeReplica(launch)  # noqa: E731
    return Replicas(capacity_slots=8, kept_logs=1, spawn=spawn, make=make)


def order(replica_id: str, *, slots: int = 4, epoch: int = 0) -> EnsureReplica:
    launch = ReplicaLaunch(
        replica_id=replica_id,
        endpoint_id="e1",
        endpoint_name="iris",
        served_entity_id="s1",
        served_entity_name="iris-1",
        artifacts=Artifacts(model_path="m", environment_path="e", python="p", environment_key="k"),
        slots=slots,
        epoch=epoch,
    )
    return EnsureReplica(launch=launch)


def states(replicas: Replicas) -> dict[str, ReplicaState]:
    return {one.replica_id: one.state for one in replicas.observe()}


async def test_the_same_order_twice_changes_nothing(replicas: Replicas):
    await replicas.ensure(order("r1"))
    await replicas.ensure(order("r1"))
    assert states(replicas) == {"r1": ReplicaState.READY}


async def test_an_older_controller_is_refused_and_counted_and_the_present_one_is_not(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
):
    counted: list[str] = []
    monkeypatch.setattr("servery_worker.replicas.count_stale_write", counted.append)
    await replicas.ensure(order("r1", epoch=2))
    with pytest.raises(Conflict):
        await replicas.ensure(order("r2", epoch=1))
    with pytest.raises(Conflict):
        await replicas.stop(StopReplica(replica_id="r1", grace_seconds=0, epoch=1))
    assert counted == ["worker", "worker"]
    await replicas.ensure(order("r2", epoch=2))
    assert set(states(replicas)) == {"r1", "r2"}


async def test_the_slots_of_all_replicas_stay_within_the_capacity(replicas: Replicas):
    await replicas.ensure(order("r1", slots=5))
    with pytest.raises(ResourceExhausted):
        await replicas.ensure(order("r2", slots=4))
    await replicas.ensure(order("r3", slots=3))


async def test_a_stopped_replica_is_seen_once_more_and_then_forgotten(replicas: Replicas):
    await replicas.ensure(order("r1"))
    await replicas.drain(1.0)
    assert states(replicas) == {"r1": ReplicaState.STOPPED}
    assert states(replicas) == {}


async def test_stopping_a_replica_that_has_stopped_changes_nothing(replicas: Replicas):
    await replicas.ensure(order("r1"))
    await replicas.drain(1.0)
    await replicas.stop(StopReplica(replica_id="r1", grace_seconds=1.0))
    await replicas.drain(1.0)
    assert states(replicas) == {"r1": ReplicaState.STOPPED}


async def test_a_stopping_worker_takes_no_replica(replicas: Replicas):
    await replicas.drain(1.0)
    with pytest.raises(Unavailable):
        await replicas.ensure(order("r1"))


async def test_a_replica_that_does_not_end_is_cancelled_and_does_not_hold_up_the_worker():
    class Deaf(FakeReplica):
        def stop(self) -> None:
            return None

        async def run(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                self.state = ReplicaState.STOPPED

    make: Callable[..., Any] = lambda launch, on_change: Deaf(launch)  # noqa: E731
    replicas = Replicas(capacity_slots=8, kept_logs=1, spawn=spawn, make=make, end_seconds=0)
    await replicas.ensure(order("r1"))
    async with asyncio.timeout(10):
        await replicas.drain(1.0)
        await asyncio.sleep(0)
    assert states(replicas) == {"r1": ReplicaState.STOPPED}


async def test_every_change_wakes_whoever_tells_of_it(replicas: Replicas):
    await replicas.ensure(order("r1"))
    assert replicas.changed.is_set()
