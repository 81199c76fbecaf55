import asyncio
from typing import Any

import pytest

from servery_common.contracts.builds import Artifacts
from servery_common.contracts.replicas import ReplicaLaunch
from servery_common.contracts.states import ReplicaState
from servery_worker.replica import Replica
from servery_worker.runner import RunnerFailed

LAUNCH = ReplicaLaunch(
    replica_id="r1",
    endpoint_id="e1",
    endpoint_name="iris",
    served_entity_id="s1",
    served_entity_name="iris-1",
    artifacts=Artifacts(model_path="m", environment_path="e", python="p", environment_key="k"),
    slots=1,
    epoch=0,
)


class FakeNats:
    """Subscribes once it is let."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.let = asyncio.Event()
        self.ignored = False
        self.disconnect_callbacks: list[Any] = []

    async def receive(self, subject: str, handler: Any) -> None:
        self.asked.set()
        await self.let.wait()

    async def ignore(self, subject: str) -> None:
        self.ignored = True


class FakeLauncher:
    """Cannot start anything."""

    def __init__(self) -> None:
        self.starts = 0

    async def start(self, *args: Any, **kwargs: Any) -> None:
        self.starts += 1
        raise RunnerFailed("start", "No space left on device")


@pytest.fixture
async def nats() -> FakeNats:
    return FakeNats()


@pytest.fixture
def launcher() -> FakeLauncher:
    return FakeLauncher()


@pytest.fixture
def changed() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def replica(nats: Any, launcher: Any, changed: asyncio.Event) -> Replica:
    replies: Any = None
    return Replica(
        LAUNCH,
        launcher=launcher,
        connection=nats,
        replies=replies,
        deadline_grace=1.0,
        memory_bytes=2**30,
        on_change=changed.set,
    )


async def test_a_stop_that_comes_before_the_replica_runs_ends_it(replica: Replica, nats: FakeNats):
    running = asyncio.create_task(replica.run())
    replica.drain()
    replica.stop()
    async with asyncio.timeout(10):
        await running
    assert replica.state is ReplicaState.STOPPED


async def test_a_stop_that_comes_while_the_replica_subscribes_ends_it(
    replica: Replica, nats: FakeNats, launcher: FakeLauncher
):
    running = asyncio.create_task(replica.run())
    async with asyncio.timeout(10):
        await nats.asked.wait()
        replica.drain()
        replica.stop()
        await running
    assert replica.state is ReplicaState.STOPPED
    assert launcher.starts == 0


async def test_a_replica_that_cannot_be_started_stays_failed_with_the_reason_until_it_is_stopped(
    replica: Replica, nats: FakeNats, changed: asyncio.Event
):
    nats.let.set()
    running = asyncio.create_task(replica.run())
    async with asyncio.timeout(10):
        await changed.wait()
        assert (replica.state, replica.reason) == (ReplicaState.FAILED, "start: No space left on device")
        replica.stop()
        await running
    assert replica.state is ReplicaState.STOPPED
    assert nats.ignored
