"""What becomes of requests when their runner dies, is late or speaks nonsense."""

import asyncio
import json
from typing import Any

import pytest
from tests.unit.worker.agents import LAUNCH, FakeRunner, Sent, deliver, request
from tests.waiting import until

from servery_common.contracts import frames
from servery_worker.agent import Agent


async def test_without_a_runner_everything_is_refused(agent: Agent, sent: Sent):
    await deliver(agent, request(1))
    assert sent.records[-1][1].head == {"reason": "busy"}


@pytest.mark.parametrize(("requests", "status"), [([1], 400), ([1, 2], 503)])
async def test_a_request_on_which_the_model_ended_its_process_is_refused_if_it_is_known_which(
    agent: Agent, runner: FakeRunner, sent: Sent, requests: list[int], status: int
):
    for number in requests:
        await deliver(agent, request(number))
    runner.begin(*requests)
    agent.suspend(holding=False)
    agent.bury("exited with status 3", ended_itself=True)
    assert [result[1] for result in sent.results()] == [status] * len(requests)


async def test_requests_of_a_dead_runner_are_lost_and_said_to_be(
    agent: Agent, runner: FakeRunner, sent: Sent
):
    await deliver(agent, request(1))
    runner.begin(1)
    agent.suspend(holding=False)
    agent.bury("was killed by SIGKILL", ended_itself=False)
    assert sent.results() == [(1, 503, True)]
    assert "was killed by SIGKILL" in json.loads(bytes(sent.records[-1][1].body))["message"]


async def test_what_arrives_while_a_runner_is_replaced_is_held_for_the_next_and_runs_once(
    agent: Agent, runner: FakeRunner, sent: Sent
):
    agent.suspend(holding=True)
    await deliver(agent, request(1))
    agent.bury("exited with status 1", ended_itself=True)
    assert sent.kinds() == [frames.ACCEPT]
    replacement = FakeRunner()
    agent.attach(replacement)  # type: ignore[arg-type]
    assert len(replacement.requests) == 1
    assert runner.requests == []


async def test_what_was_held_for_a_runner_that_never_came_is_answered_as_not_run(
    agent: Agent, runner: FakeRunner, sent: Sent
):
    agent.suspend(holding=True)
    await deliver(agent, request(1))
    agent.give_up("no runner")
    assert sent.results() == [(1, 503, False)]
    await deliver(agent, request(2))
    assert sent.records[-1][1].head == {"reason": "busy"}


async def test_what_the_model_of_a_dead_runner_had_not_seen_is_run_by_the_next(
    agent: Agent, runner: FakeRunner, sent: Sent
):
    await deliver(agent, request(1), request(2))
    runner.begin(1)
    agent.suspend(holding=True)
    agent.bury("was killed by SIGKILL", ended_itself=False)
    assert sent.results() == [(1, 503, True)]
    replacement = FakeRunner()
    agent.attach(replacement)  # type: ignore[arg-type]
    assert [number for number, _, _ in replacement.requests] == [2]


async def test_what_the_model_had_not_seen_is_not_lost_when_there_is_no_next_runner(
    agent: Agent, runner: FakeRunner, sent: Sent
):
    await deliver(agent, request(1))
    agent.suspend(holding=False)
    agent.bury("was killed by SIGKILL", ended_itself=False)
    assert sent.results() == [(1, 503, False)]


async def test_after_a_process_died_under_several_requests_each_is_predicted_by_itself(
    agent: Agent, runner: FakeRunner
):
    await deliver(agent, request(1), request(2))
    runner.begin(1, 2)
    agent.suspend(holding=True)
    agent.bury("was killed by SIGSEGV", ended_itself=True)
    replacement = FakeRunner()
    agent.attach(replacement)  # type: ignore[arg-type]
    await deliver(agent, request(3))
    assert replacement.flags == [frames.SOLO]


async def test_a_request_whose_time_passed_while_it_waited_in_the_runner_costs_no_process(sent: Sent):
    killed: list[bool] = []
    agent = Agent(LAUNCH, sent, deadline_grace=1.0, on_overdue=lambda: killed.append(True))  # type: ignore[arg-type]
    runner = FakeRunner()
    agent.attach(runner)  # type: ignore[arg-type]
    await deliver(agent, request(1, ttl=500))
    await until(lambda: bool(runner.cancelled))
    assert sent.results() == [(1, 504, False)]
    runner.say(frames.RESULT, runner.requests[0][0], {"status": 499}, flags=frames.NOT_RUN)
    assert agent.in_flight == 0
    assert killed == []
    assert len(sent.results()) == 1


async def test_a_runner_that_does_not_give_back_what_it_has_not_begun_is_replaced(sent: Sent):
    killed = asyncio.Event()
    agent = Agent(LAUNCH, sent, deadline_grace=0.0, on_overdue=killed.set)  # type: ignore[arg-type]
    agent.attach(FakeRunner())  # type: ignore[arg-type]
    await deliver(agent, request(1, ttl=500))
    await asyncio.wait_for(killed.wait(), 10)


async def test_a_request_the_runner_found_to_be_too_late_is_answered_504(
    agent: Agent, runner: FakeRunner, sent: Sent
):
    await deliver(agent, request(1))
    runner.say(frames.RESULT, 1, {"status": 499}, flags=frames.NOT_RUN)
    assert sent.results() == [(1, 504, False)]


@pytest.mark.parametrize(
    "head",
    [
        {"status": 204},
        {"status": 100},
        {"ct": "a\r\nset-cookie: b=c"},
        {"ct": "a" * 60_000},
        {"p": float("inf")},
    ],
    ids=lambda head: str(head)[:30],
)
async def test_a_request_answered_with_nonsense_is_answered_when_its_runner_is_buried(
    agent: Agent, runner: FakeRunner, sent: Sent, head: dict[str, Any]
) -> None:
    await deliver(agent, request(1))
    runner.begin(1)
    with pytest.raises((frames.FrameError, OverflowError)):
        runner.say(frames.RESULT, 1, head, bytes(frames.CHUNK_BYTES + 1))
    assert (agent.in_flight, sent.results()) == (1, [])
    agent.suspend(holding=False)
    agent.bury("was killed by SIGKILL", ended_itself=False)
    assert (agent.in_flight, sent.results()) == (0, [(1, 503, True)])
