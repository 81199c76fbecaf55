"""What the agent of a replica accepts, runs and answers."""

import asyncio

import pytest
from tests.unit.worker.agents import FakeRunner, Sent, deliver, request

from servery_common.contracts import frames
from servery_worker.agent import Agent


async def test_a_request_is_accepted_run_and_answered_under_the_gateways_id(
    agent: Agent, runner: FakeRunner, sent: Sent
):
    await deliver(agent, request(70, b"body", rid="q"))
    [(number, head, body)] = runner.requests
    assert (head, body) == ((pytest.approx(asyncio.get_running_loop().time() + 60, abs=5), ""), b"body")
    runner.answer(number, body=b"answer")
    assert sent.kinds() == [frames.ACCEPT, frames.RESULT]
    assert sent.records[-1][1].id == 70
    assert bytes(sent.records[-1][1].body) == b"answer"
    assert agent.in_flight == 0


async def test_a_request_whose_acceptance_was_lost_is_never_run_and_given_back(
    agent: Agent, runner: FakeRunner, sent: Sent
):
    sent.connected = False
    await deliver(agent, request(70))
    assert runner.requests == []
    assert agent.in_flight == 0
    assert sent.kinds() == [frames.ACCEPT, frames.REFUSE]


async def test_an_acceptance_waits_for_company_while_the_runner_has_something_to_go_on_with(
    agent: Agent, runner: FakeRunner, sent: Sent
):
    await deliver(agent, request(1))
    await deliver(agent, request(2))
    assert sent.soon == [True, False]
    first, second = (number for number, _, _ in runner.requests)
    runner.begin(first, second)
    runner.answer(first)
    await deliver(agent, request(3))
    assert sent.soon == [True, False, True]


async def test_where_requests_are_predicted_together_none_waits_outside(
    agent: Agent, runner: FakeRunner, sent: Sent
):
    runner.joined = 8
    agent.attach(runner)  # type: ignore[arg-type]
    await deliver(agent, request(1), request(2))
    assert sent.soon == [True, True]


async def test_two_gateways_may_use_the_same_id(agent: Agent, runner: FakeRunner, sent: Sent):
    await deliver(agent, request(1), reply="servery.replies.g1")
    await deliver(agent, request(1), reply="servery.replies.g2")
    runner.answer(runner.requests[1][0])
    assert sent.records[-1][0] == "servery.replies.g2"


async def test_a_repeated_request_runs_once(agent: Agent, runner: FakeRunner, sent: Sent):
    await deliver(agent, request(1), request(1))
    assert len(runner.requests) == 1
    assert sent.kinds() == [frames.ACCEPT]


async def test_more_than_the_slots_are_refused(agent: Agent, runner: FakeRunner, sent: Sent):
    await deliver(agent, request(1), request(2), request(3))
    assert sent.records[-1][1].head == {"reason": "busy"}
    assert len(runner.requests) == 2


async def test_one_unreadable_record_does_not_spoil_the_others_of_its_frame(agent: Agent, runner: FakeRunner):
    await deliver(agent, request(1, total="many"), request(2, ttl="soon"), request(3))
    assert len(runner.requests) == 1


async def test_a_cancelled_request_holds_its_slot_until_the_runner_answers_and_is_not_answered(
    agent: Agent, runner: FakeRunner, sent: Sent
):
    await deliver(agent, request(1), frames.encode(frames.CANCEL, 1))
    [(number, _, _)] = runner.requests
    assert runner.cancelled == [number]
    assert agent.in_flight == 1
    runner.answer(number, status=499)
    assert agent.in_flight == 0
    assert sent.results() == []


async def test_a_draining_agent_takes_nothing_new_and_is_idle_once_all_is_answered(
    agent: Agent, runner: FakeRunner, sent: Sent
):
    await deliver(agent, request(1))
    agent.draining = True
    await deliver(agent, request(2))
    assert sent.records[-1][1].head == {"reason": "draining"}
    runner.answer(runner.requests[0][0])
    await agent.idle()


async def test_a_replica_that_joins_requests_accepts_more_of_them(
    agent: Agent, runner: FakeRunner, sent: Sent
):
    runner.joined = 8
    agent.attach(runner)  # type: ignore[arg-type]
    await deliver(agent, *(request(number) for number in range(1, 18)))
    assert sent.kinds().count(frames.ACCEPT) == agent.capacity == 16
    assert sent.records[-1][1].head == {"reason": "busy"}
