"""Streamed answers on their way through the agent."""

import asyncio
from typing import Any

import pytest
from tests.unit.worker.agents import LAUNCH, FakeRunner, Sent, deliver, request

from servery_common.contracts import frames
from servery_worker.agent import DEADLINE_GRANULARITY, Agent


def begin(runner: FakeRunner, number: int) -> None:
    runner.say(frames.RESULT, number, {"ct": "text/event-stream"}, flags=frames.STREAM)


def say(runner: FakeRunner, number: int, piece: bytes) -> None:
    runner.say(frames.CHUNK, number, {}, piece)


def end(runner: FakeRunner, number: int, head: dict[str, Any] | None = None, body: bytes = b"") -> None:
    runner.say(frames.END, number, head or {}, body)


async def test_a_stream_passes_and_keeps_its_slot_until_its_end(
    agent: Agent, runner: FakeRunner, sent: Sent
) -> None:
    await deliver(agent, request(1))
    begin(runner, 1)
    say(runner, 1, b"a")
    assert agent.in_flight == 1
    end(runner, 1)
    assert agent.in_flight == 0
    assert sent.kinds() == [frames.ACCEPT, frames.RESULT, frames.CHUNK, frames.END]


async def test_what_the_gateway_took_is_told_to_the_runner(
    agent: Agent, runner: FakeRunner, sent: Sent
) -> None:
    await deliver(agent, request(1))
    begin(runner, 1)
    for _ in range(3):
        say(runner, 1, b"x" * (frames.STREAM_WINDOW_BYTES // 2))
        await deliver(agent, frames.encode(frames.WINDOW, 1, {"bytes": frames.STREAM_WINDOW_BYTES // 2}))
    assert runner.windows == [(1, frames.STREAM_WINDOW_BYTES // 2)] * 3


async def test_a_runner_may_not_send_more_than_its_window(agent: Agent, runner: FakeRunner) -> None:
    await deliver(agent, request(1))
    begin(runner, 1)
    say(runner, 1, b"x" * frames.STREAM_WINDOW_BYTES)
    with pytest.raises(frames.FrameError):
        say(runner, 1, b"x")


async def test_a_runner_may_not_speak_of_streams_that_are_none(agent: Agent, runner: FakeRunner) -> None:
    await deliver(agent, request(1))
    for wrong in (lambda: say(runner, 1, b"a"), lambda: end(runner, 1)):
        with pytest.raises(frames.FrameError):
            wrong()
    begin(runner, 1)
    with pytest.raises(frames.FrameError):
        runner.answer(1)


async def test_a_stream_under_a_runner_that_dies_ends_as_lost(
    agent: Agent, runner: FakeRunner, sent: Sent
) -> None:
    await deliver(agent, request(1))
    begin(runner, 1)
    agent.suspend(holding=False)
    agent.bury("was killed", ended_itself=False)
    _, last = sent.records[-1]
    assert (last.kind, last.head) == (frames.END, {"status": 503, "lost": True})


def patience(agent: Agent) -> float:
    """Event-loop time left until the agent looks after its only job."""
    [job] = agent._jobs.values()
    [slot] = [number for number, jobs in agent._deadlines._slots.items() if job in jobs]
    return slot * DEADLINE_GRANULARITY - asyncio.get_running_loop().time()


async def test_only_its_gateway_prolongs_a_stream(
    agent: Agent, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deliver(agent, request(1))
    begin(runner, 1)
    loop, began = asyncio.get_running_loop(), asyncio.get_running_loop().time()
    monkeypatch.setattr(loop, "time", lambda: began + 20)
    say(runner, 1, b"a")
    assert patience(agent) < LAUNCH.timeout_seconds - 10
    await deliver(agent, frames.encode(frames.WINDOW, 1, {"bytes": 0}))
    assert patience(agent) == pytest.approx(LAUNCH.timeout_seconds + 2.0, abs=DEADLINE_GRANULARITY)
    assert runner.windows == []


async def test_no_gateway_prolongs_a_stream_beyond_its_longest_time(agent: Agent, runner: FakeRunner) -> None:
    await deliver(agent, request(1, stream_ttl=5000))
    begin(runner, 1)
    await deliver(agent, frames.encode(frames.WINDOW, 1, {"bytes": 0}))
    assert patience(agent) <= 5.0 + 2.0 + DEADLINE_GRANULARITY


async def test_a_cancelled_stream_has_its_time_for_the_piece_it_is_at(
    agent: Agent, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deliver(agent, request(1))
    begin(runner, 1)
    loop, began = asyncio.get_running_loop(), asyncio.get_running_loop().time()
    monkeypatch.setattr(loop, "time", lambda: began + 20)
    await deliver(agent, frames.encode(frames.WINDOW, 1, {"bytes": 0}))
    await deliver(agent, frames.encode(frames.CANCEL, 1))
    assert patience(agent) == pytest.approx(LAUNCH.timeout_seconds - 20 + 2.0, abs=1.0)


async def test_a_cancelled_stream_says_nothing_more(agent: Agent, runner: FakeRunner, sent: Sent) -> None:
    await deliver(agent, request(1))
    begin(runner, 1)
    await deliver(agent, frames.encode(frames.CANCEL, 1))
    say(runner, 1, b"a")
    assert runner.cancelled == [1]
    assert agent.in_flight == 1
    end(runner, 1, {"status": 499})
    assert agent.in_flight == 0
    assert sent.kinds() == [frames.ACCEPT, frames.RESULT]


async def test_a_stream_that_begins_with_nonsense_has_not_begun(
    agent: Agent, runner: FakeRunner, sent: Sent
) -> None:
    await deliver(agent, request(1))
    runner.begin(1)
    with pytest.raises(frames.FrameError):
        runner.say(frames.RESULT, 1, {"ct": "a\r\nb: c"}, flags=frames.STREAM)
    agent.suspend(holding=False)
    agent.bury("was killed by SIGKILL", ended_itself=False)
    assert sent.results() == [(1, 503, True)]
    assert frames.END not in sent.kinds()


@pytest.mark.parametrize("head", [{}, {"status": 204}, {"status": 400, "p": float("inf")}], ids=str)
async def test_a_stream_that_ends_with_nonsense_is_ended_when_its_runner_is_buried(
    agent: Agent, runner: FakeRunner, sent: Sent, head: dict[str, Any]
) -> None:
    await deliver(agent, request(1))
    begin(runner, 1)
    with pytest.raises((frames.FrameError, OverflowError, KeyError)):
        end(runner, 1, head, b"{}")
    agent.suspend(holding=False)
    agent.bury("was killed by SIGKILL", ended_itself=False)
    assert sent.records[-1][1].kind == frames.END
    assert sent.records[-1][1].head["status"] == 503
