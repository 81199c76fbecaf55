"""Long bodies and answers pass the agent in pieces, within windows."""

from tests.unit.worker.agents import FakeRunner, Sent, deliver, request

from servery_common.contracts import frames
from servery_worker.agent import Agent


async def test_a_long_body_that_is_here_before_its_acceptance_is_written_waits_for_that(
    agent: Agent, runner: FakeRunner, sent: Sent
):
    sent.writes = False
    await deliver(agent, frames.encode(frames.REQUEST, 1, {"ttl": 60_000, "total": 4}, b"ab"))
    await deliver(agent, frames.encode(frames.CHUNK, 1, None, b"cd"))
    agent.attach(runner)  # type: ignore[arg-type]
    assert runner.requests == []
    sent.unwritten[0](True)
    assert [body for _, _, body in runner.requests] == [b"abcd"]


async def test_a_body_that_lost_pieces_with_the_connection_is_given_back(
    agent: Agent, runner: FakeRunner, sent: Sent
):
    await deliver(agent, frames.encode(frames.REQUEST, 1, {"ttl": 60_000, "total": 4}, b"ab"))
    await deliver(agent, request(2))
    agent.connection_lost()
    assert agent.in_flight == 1
    assert [(record.kind, record.id) for _, record in sent.records][-1] == (frames.REFUSE, 1)
    await deliver(agent, frames.encode(frames.CHUNK, 1, None, b"cd"))
    assert len(runner.requests) == 1


async def test_a_body_in_pieces_runs_when_it_is_complete_and_opens_the_window(
    agent: Agent, runner: FakeRunner, sent: Sent
):
    await deliver(agent, request(1, b"ab", total=5))
    assert runner.requests == []
    await deliver(agent, frames.encode(frames.CHUNK, 1, None, b"cde"))
    assert runner.requests[0][2] == b"abcde"
    windows = [record.head for _, record in sent.records if record.kind == frames.WINDOW]
    assert windows == [{"bytes": 2}, {"bytes": 3}]


async def test_a_body_that_is_held_back_and_complete_nevertheless_is_acknowledged_whole(
    agent: Agent, runner: FakeRunner, sent: Sent
):
    runner.joined = 8
    agent.attach(runner)  # type: ignore[arg-type]
    await deliver(agent, *(request(number, b"abc", total=6) for number in (1, 2, 3)))
    await deliver(agent, frames.encode(frames.CHUNK, 3, None, b"def"))
    windows = [
        (record.id, record.head["bytes"]) for _, record in sent.records if record.kind == frames.WINDOW
    ]
    assert windows == [(1, 3), (2, 3), (3, 6)]


async def test_a_body_longer_than_announced_is_a_bad_request(agent: Agent, runner: FakeRunner, sent: Sent):
    await deliver(agent, request(1, b"ab", total=3), frames.encode(frames.CHUNK, 1, None, b"cde"))
    assert sent.results() == [(1, 400, False)]
    assert runner.requests == []


async def test_a_large_answer_waits_for_the_window(agent: Agent, runner: FakeRunner, sent: Sent):
    await deliver(agent, request(1))
    body = bytes(frames.WINDOW_BYTES + frames.CHUNK_BYTES)
    runner.answer(runner.requests[0][0], body=body)
    assert sent.results() == [(1, 200, False)]
    assert sum(len(record.body) for _, record in sent.records) == frames.WINDOW_BYTES
    await deliver(agent, frames.encode(frames.WINDOW, 1, {"bytes": frames.CHUNK_BYTES}))
    assert sum(len(record.body) for _, record in sent.records) == len(body)


async def test_long_bodies_beyond_the_slots_go_on_when_others_are_answered(
    agent: Agent, runner: FakeRunner, sent: Sent
):
    runner.joined = 8
    agent.attach(runner)  # type: ignore[arg-type]
    await deliver(agent, *(request(number, b"abc", total=6) for number in (1, 2, 3)))
    windows = [record.id for _, record in sent.records if record.kind == frames.WINDOW]
    assert windows == [1, 2]
    await deliver(agent, frames.encode(frames.CHUNK, 1, None, b"def"))
    runner.answer(runner.requests[0][0])
    windows = [record.id for _, record in sent.records if record.kind == frames.WINDOW]
    assert windows == [1, 2, 1, 3]
