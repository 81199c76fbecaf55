"""What becomes of a replica that dies again and again, and of one that is stopped, at every stage of its life."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.worker.agents import LAUNCH, FakeRunner, Sent, request
from tests.unit.worker.test_replica import FakeNats
from tests.waiting import until

from servery_common.contracts import frames
from servery_common.contracts.replicas import EnsureReplica, ReplicaObservation, StopReplica
from servery_common.contracts.states import ReplicaState
from servery_worker.replica import Replica
from servery_worker.replicas import Replicas
from servery_worker.restarts import HEALTHY_SECONDS
from servery_worker.runner import RunnerFailed

S = ReplicaState


class MortalRunner(FakeRunner):
    """A runner process that ends when it is told to."""

    quick = True
    pid = 7

    def __init__(self) -> None:
        super().__init__()
        self.dead = asyncio.Event()

    async def end_reason(self) -> str:
        return "exited with status 3"

    def ended_itself(self) -> bool:
        return True

    def kill(self) -> None:
        self.dead.set()

    def answer_all(self) -> None:
        for number, _, _ in self.requests:
            self.answer(number)


class ScriptedLauncher:
    """Starts what the test hands to it, when it does."""

    def __init__(self) -> None:
        self.outcomes: asyncio.Queue[MortalRunner | RunnerFailed] = asyncio.Queue()
        self.warm_ups: list[bool] = []
        self.cancelled = 0
        self.disposed: list[MortalRunner] = []

    async def start(self, *_: Any, warm_up: bool, **__: Any) -> MortalRunner:
        self.warm_ups.append(warm_up)
        try:
            outcome = await self.outcomes.get()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(outcome, RunnerFailed):
            raise outcome
        return outcome

    async def dispose(self, runner: MortalRunner) -> None:
        self.disposed.append(runner)

    def give(self, outcome: MortalRunner | RunnerFailed) -> None:
        self.outcomes.put_nowait(outcome)


class Time:
    """The clock of a replica, and its pauses, which last until they are let end."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.lets_go = asyncio.Event()
        self.lets_go.set()

    def clock(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await self.lets_go.wait()


class World:
    """One replica of a worker, and all it deals with."""

    def __init__(self) -> None:
        self.nats = FakeNats()
        self.nats.let.set()
        self.sent = Sent()
        self.launcher = ScriptedLauncher()
        self.time = Time()
        self.replicas = Replicas(
            capacity_slots=8,
            kept_logs=1,
            spawn=lambda name, work: asyncio.create_task(work, name=name),
            make=self._make,
        )
        self.seen: list[ReplicaObservation] = []

    def _make(self, launch: Any, on_change: Callable[[], None]) -> Replica:
        def changed() -> None:
            self.seen.append(replica.observe())
            on_change()

        launcher: Any = self.launcher
        nats: Any = self.nats
        sent: Any = self.sent
        replica = Replica(
            launch,
            launcher=launcher,
            connection=nats,
            replies=sent,
            deadline_grace=1.0,
            memory_bytes=2**30,
            on_change=changed,
            clock=self.time.clock,
            pause=self.time.pause,
        )
        return replica

    async def order(self) -> None:
        await self.replicas.ensure(EnsureReplica(launch=LAUNCH))
        await until(lambda: self.launcher.warm_ups != [])

    async def serve(self) -> MortalRunner:
        """Have the next runner started, and be ready with it."""
        runner = MortalRunner()
        before = len(self.seen)
        self.launcher.give(runner)
        await until(lambda: any(one.state in (S.READY, S.DRAINING) for one in self.seen[before:]))
        return runner

    async def stop(self, grace: float = 60.0) -> None:
        await self.replicas.stop(StopReplica(replica_id=LAUNCH.replica_id, grace_seconds=grace))
        await until(lambda: self.state in (S.DRAINING, S.STOPPED, S.FAILED))

    async def paused(self, times: int) -> None:
        await until(lambda: len(self.time.pauses) == times)

    async def stopped(self) -> None:
        await until(lambda: self.state is S.STOPPED)

    def ask(self, number: int) -> None:
        self.nats.handler(memoryview(request(number)), "g", b"", b"servery.infer.r1")

    @property
    def state(self) -> ReplicaState | None:
        return self.seen[-1].state if self.seen else None

    def refused(self) -> list[str]:
        return [one.head["reason"] for _, one in self.sent.records if one.kind == frames.REFUSE]


@pytest.fixture
async def world() -> World:
    return World()


async def test_one_that_crashes_on_each_request_is_started_later_each_time_and_says_so(world: World):
    await world.order()
    for number in range(4):
        runner = await world.serve()
        world.ask(number)
        runner.begin(*(given for given, _, _ in runner.requests))
        runner.dead.set()
        await world.paused(number + 1)
    assert world.time.pauses == [0.0, 0.5, 1.0, 2.0]
    reasons = [one.reason for one in world.seen if one.state is S.RESTARTING]
    assert reasons[0] == "the model's process exited with status 3"
    assert reasons[3] == f"{reasons[0]} (4 times in a row; started again in 2 s)"
    await world.stop()
    await world.stopped()


async def test_one_that_answers_between_its_crashes_is_started_again_almost_at_once(world: World):
    await world.order()
    for number in range(5):
        runner = await world.serve()
        world.ask(number)
        runner.answer_all()
        runner.dead.set()
        await world.paused(number + 1)
    assert world.time.pauses == [0.0, 0.0, 0.0, 0.25, 0.25]
    assert world.sent.results() == [(number, 200, False) for number in range(5)]
    await world.stop()
    await world.stopped()


async def test_one_that_was_healthy_for_a_while_does_not_wait_for_what_was_before(world: World):
    await world.order()
    for number in range(4):
        runner = await world.serve()
        world.time.now += HEALTHY_SECONDS
        runner.dead.set()
        await world.paused(number + 1)
    assert world.time.pauses == [0.0] * 4
    await world.stop()
    await world.stopped()


async def test_a_replacement_that_does_not_load_is_tried_again_and_says_why(world: World):
    await world.order()
    (await world.serve()).dead.set()
    for number in range(2):
        world.launcher.give(RunnerFailed("load", "OSError: disk"))
        await world.paused(number + 2)
    assert world.seen[-1].state is S.RESTARTING
    assert world.seen[-1].reason == "load: OSError: disk (3 times in a row; started again in 1 s)"
    await world.serve()
    assert (world.seen[-1].state, world.seen[-1].reason, world.seen[-1].restarts) == (S.READY, "", 3)
    await world.stop()
    await world.stopped()


async def test_one_that_is_stopped_while_it_starts_ends_its_start(world: World):
    await world.order()
    await world.stop()
    await world.stopped()
    assert world.launcher.cancelled == 1


async def test_one_that_is_stopped_while_it_pauses_does_not_wait_for_the_end_of_the_pause(world: World):
    world.time.lets_go.clear()
    await world.order()
    (await world.serve()).dead.set()
    await until(lambda: world.time.pauses != [])
    await world.stop()
    await world.stopped()
    assert len(world.launcher.warm_ups) == 1


async def test_one_that_is_stopped_finishes_what_it_accepted_and_takes_nothing_new(world: World):
    await world.order()
    runner = await world.serve()
    world.ask(1)
    world.ask(2)
    await world.stop()
    world.ask(3)
    assert world.refused() == ["draining"]
    first, second = (number for number, _, _ in runner.requests)
    runner.answer(first)
    await asyncio.sleep(0)
    assert world.state is S.DRAINING
    runner.answer(second)
    await world.stopped()
    assert world.sent.results() == [(1, 200, False), (2, 200, False)]
    assert world.launcher.disposed == [runner]


async def test_one_that_is_stopped_while_requests_wait_for_its_replacement_answers_them_first(world: World):
    await world.order()
    (await world.serve()).dead.set()
    await until(lambda: world.state is S.RESTARTING)
    world.ask(1)
    await world.stop()
    replacement = await world.serve()
    assert world.state is S.DRAINING
    replacement.answer_all()
    await world.stopped()
    assert world.sent.results() == [(1, 200, False)]


async def test_one_whose_process_dies_while_it_drains_still_answers_what_the_model_had_not_seen(world: World):
    await world.order()
    runner = await world.serve()
    for number in (1, 2):
        world.ask(number)
    seen, _ = (number for number, _, _ in runner.requests)
    runner.begin(seen)
    await world.stop()
    runner.dead.set()
    replacement = await world.serve()
    replacement.answer_all()
    await world.stopped()
    # The one that ended the process is told so; it was alone with the model.
    assert world.sent.results() == [(1, 400, False), (2, 200, False)]


async def test_what_is_not_finished_within_its_grace_is_told_that_it_is_lost(world: World):
    await world.order()
    runner = await world.serve()
    world.ask(1)
    await world.stop(grace=0.0)
    await world.stopped()
    assert world.sent.results() == [(1, 503, True)]
    assert world.launcher.disposed == [runner]


async def test_one_that_has_failed_stops(world: World):
    await world.order()
    world.launcher.give(RunnerFailed("load", "no"))
    await until(lambda: world.state is S.FAILED)
    await world.stop()
    await world.stopped()
    assert world.seen[-1].reason == "load: no"


async def test_the_example_is_not_predicted_first_when_requests_wait(world: World):
    await world.order()
    runner = await world.serve()
    world.ask(1)
    runner.dead.set()
    await until(lambda: world.launcher.warm_ups == [True, False])
    (await world.serve()).answer_all()
    assert world.sent.results() == [(1, 200, False)]
    await world.stop()
    await world.stopped()
