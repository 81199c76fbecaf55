import asyncio
import contextlib
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.worker import agents
from tests.waiting import until

from servery_common.contracts import frames
from servery_common.contracts.states import ReplicaState
from servery_worker.replica import Replica
from servery_worker.runner import RunnerFailed

LAUNCH = agents.LAUNCH.model_copy(update={"slots": 1})


class FakeNats:
    """Subscribes once it is let."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.let = asyncio.Event()
        self.ignored = False
        self.disconnect_callbacks: list[Any] = []
        self.handler: Any = None

    async def receive(self, subject: str, handler: Any) -> None:
        self.handler = handler
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


async def test_a_stop_in_the_moment_a_process_was_forked_ends_the_replica(
    replica: Replica, nats: FakeNats, launcher: Any, monkeypatch: pytest.MonkeyPatch
):
    """As ``asyncio.wait_for`` does it up to Python 3.11: what has come is returned, and the cancel is lost."""
    starting = asyncio.Event()

    async def start(*_: Any, **__: Any) -> EndingRunner:
        starting.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return runner

    async def dispose(disposed: EndingRunner) -> None:
        disposed.kill()

    runner = EndingRunner()
    monkeypatch.setattr(launcher, "start", start)
    monkeypatch.setattr(launcher, "dispose", dispose, raising=False)
    nats.let.set()
    running = asyncio.create_task(replica.run())
    async with asyncio.timeout(10):
        await starting.wait()
        replica.drain()
        replica.stop()
        await running
    assert replica.state is ReplicaState.STOPPED
    assert runner.dead.is_set(), "its process was left"


class EndingRunner:
    """Ends by itself when ``dead`` is set; what it exited with is known when ``reported`` is."""

    joined = 1
    quick = False
    pid = 7

    def __init__(self) -> None:
        self.dead = asyncio.Event()
        self.asked = asyncio.Event()
        self.reported = asyncio.Event()
        self.numbers: list[int] = []
        self.begun = SimpleNamespace(has=lambda number: True, is_predicted=lambda number: True)
        self.on_result: Any = None

    def request(self, number: int, *_: Any) -> None:
        self.numbers.append(number)

    async def end_reason(self) -> str:
        self.asked.set()
        await self.reported.wait()
        return "exited with status 3"

    def ended_itself(self) -> bool:
        return True

    def kill(self) -> None:
        self.dead.set()


class Sent:
    """Stands in for Replies."""

    def __init__(self) -> None:
        self.results: list[tuple[int, str]] = []

    def accept(self, subject: str, id: int, then: Callable[[bool], None], *, soon: bool = True) -> None:
        then(True)

    def send(self, subject: str, *record: bytes | memoryview) -> None:
        for one in frames.decode(b"".join(record)):
            self.results.append((one.head["status"], json.loads(bytes(one.body))["message"]))


@pytest.mark.parametrize(
    ("late", "reason"), [(True, "exited with status 3"), (False, "was ended because it used")]
)
async def test_what_is_noticed_after_a_runner_ended_does_not_change_why_it_did(
    nats: FakeNats, changed: asyncio.Event, late: bool, reason: str
) -> None:
    runner, sent = EndingRunner(), Sent()
    starts = asyncio.Queue[EndingRunner]()
    starts.put_nowait(runner)

    async def dispose(_runner: EndingRunner) -> None:
        return None

    launcher: Any = SimpleNamespace(start=lambda *_, **__: starts.get(), dispose=dispose)
    replica = Replica(
        LAUNCH,
        launcher=launcher,
        connection=nats,  # type: ignore[arg-type]
        replies=sent,  # type: ignore[arg-type]
        deadline_grace=1.0,
        memory_bytes=2**30,
        on_change=changed.set,
    )
    nats.let.set()
    running = asyncio.create_task(replica.run())
    async with asyncio.timeout(10):
        while replica.state is not ReplicaState.READY:
            changed.clear()
            await changed.wait()
        assert nats.handler is not None
        nats.handler(
            memoryview(frames.encode(frames.REQUEST, 1, {"ttl": 60_000}, b"{}")),
            "g",
            b"",
            b"servery.infer.r1",
        )
        assert runner.numbers
        if late:
            runner.dead.set()
            replica.end_excessive()
            await runner.asked.wait()
        replica.end_excessive()
        await runner.asked.wait()
        runner.reported.set()
        await until(lambda: bool(sent.results))
        replica.stop()
        await running
    [(answered, message)] = sent.results
    assert answered == 400
    assert reason in message
