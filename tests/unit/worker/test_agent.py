import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.waiting import until

from servery_common.contracts import frames
from servery_common.contracts.builds import Artifacts
from servery_common.contracts.replicas import ReplicaLaunch
from servery_worker.agent import DEADLINE_GRANULARITY, Agent

LAUNCH = ReplicaLaunch(
    replica_id="r1",
    endpoint_id="e1",
    endpoint_name="iris",
    served_entity_id="s1",
    served_entity_name="iris-1",
    artifacts=Artifacts(model_path="m", environment_path="e", python="p", environment_key="k"),
    slots=2,
)


class Sent:
    """Stands in for Replies and keeps what was sent, decoded."""

    def __init__(self) -> None:
        self.records: list[tuple[str, frames.Record]] = []
        self.connected = True
        self.writes = True
        self.soon: list[bool] = []
        self.unwritten: list[Callable[[bool], None]] = []

    def send(self, subject: str, *record: bytes | memoryview) -> None:
        self.records += [(subject, one) for one in frames.decode(b"".join(record))]

    send_or_hold = send

    def accept(self, subject: str, id: int, then: Callable[[bool], None], *, soon: bool = True) -> None:
        self.soon.append(soon)
        self.records.append((subject, frames.Record(frames.ACCEPT, id, {}, b"")))
        if self.writes:
            then(self.connected)
        else:
            self.unwritten.append(then)

    def kinds(self) -> list[int]:
        return [record.kind for _, record in self.records]

    def results(self) -> list[tuple[int, int, bool]]:
        """Id, status, lost."""
        return [
            (record.id, record.head.get("status", 200), record.head.get("lost", False))
            for _, record in self.records
            if record.kind == frames.RESULT
        ]


class Begun(set[int]):
    """Stands in for a BegunTable."""

    has = set[int].__contains__
    is_predicted = has


class FakeRunner:
    """Stands in for a runner process and keeps what it was given."""

    def __init__(self) -> None:
        self.requests: list[tuple[int, tuple[float, str], bytes]] = []
        self.cancelled: list[int] = []
        self.windows: list[tuple[int, int]] = []
        self.flags: list[int] = []
        self.joined = 1
        self.begun = Begun()
        self.on_result: Any = None

    def request(self, id: int, order: bytes, body: bytes | memoryview, flags: int = 0) -> None:
        self.requests.append((id, frames.unpack_order(order), bytes(body)))
        self.flags.append(flags)

    def cancel(self, id: int) -> None:
        self.cancelled.append(id)

    def open_window(self, id: int, count: int) -> None:
        self.windows.append((id, count))

    def answer(self, number: int, status: int = 200, body: bytes = b"{}") -> None:
        self.say(frames.RESULT, number, {"status": status, "ct": "application/json"}, body)

    def begin(self, *numbers: int) -> None:
        self.begun |= set(numbers)

    def say(
        self, kind: int, number: int, head: dict[str, Any] | None, body: bytes = b"", flags: int = 0
    ) -> None:
        (record,) = frames.scan(frames.encode(kind, number, head, body, flags))
        self.on_result(record)


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
async def agent(sent: Sent) -> Agent:
    return Agent(LAUNCH, sent, deadline_grace=2.0, on_overdue=lambda: None)  # type: ignore[arg-type]


@pytest.fixture
def runner(agent: Agent) -> FakeRunner:
    runner = FakeRunner()
    agent.attach(runner)  # type: ignore[arg-type]
    return runner


async def deliver(agent: Agent, *records: bytes, reply: str = "servery.replies.g1") -> None:
    agent.on_message(memoryview(b"".join(records)), reply, b"", b"servery.infer.r1")


def request(number: int, body: bytes = b"{}", **head: Any) -> bytes:
    return frames.encode(frames.REQUEST, number, {"ct": "application/json", "ttl": 60_000} | head, body)


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


async def test_without_a_runner_everything_is_refused(agent: Agent, sent: Sent):
    await deliver(agent, request(1))
    assert sent.records[-1][1].head == {"reason": "busy"}


async def test_a_body_in_pieces_runs_when_it_is_complete_and_opens_the_window(
    agent: Agent, runner: FakeRunner, sent: Sent
):
    await deliver(agent, request(1, b"ab", total=5))
    assert runner.requests == []
    await deliver(agent, frames.encode(frames.CHUNK, 1, None, b"cde"))
    assert runner.requests[0][2] == b"abcde"
    windows = [record.head for _, record in sent.records if record.kind == frames.WINDOW]
    assert windows == [{"bytes": 2}]


async def test_a_body_longer_than_announced_is_a_bad_request(agent: Agent, runner: FakeRunner, sent: Sent):
    await deliver(agent, request(1, b"ab", total=3), frames.encode(frames.CHUNK, 1, None, b"cde"))
    assert sent.results() == [(1, 400, False)]
    assert runner.requests == []


async def test_one_unreadable_record_does_not_spoil_the_others_of_its_frame(agent: Agent, runner: FakeRunner):
    await deliver(agent, request(1, total="many"), request(2, ttl="soon"), request(3))
    assert len(runner.requests) == 1


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


async def test_a_large_answer_waits_for_the_window(agent: Agent, runner: FakeRunner, sent: Sent):
    await deliver(agent, request(1))
    body = bytes(frames.WINDOW_BYTES + frames.CHUNK_BYTES)
    runner.answer(runner.requests[0][0], body=body)
    assert sent.results() == [(1, 200, False)]
    assert sum(len(record.body) for _, record in sent.records) == frames.WINDOW_BYTES
    await deliver(agent, frames.encode(frames.WINDOW, 1, {"bytes": frames.CHUNK_BYTES}))
    assert sum(len(record.body) for _, record in sent.records) == len(body)


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


async def test_a_replica_that_joins_requests_accepts_more_of_them(
    agent: Agent, runner: FakeRunner, sent: Sent
):
    runner.joined = 8
    agent.attach(runner)  # type: ignore[arg-type]
    await deliver(agent, *(request(number) for number in range(1, 18)))
    assert sent.kinds().count(frames.ACCEPT) == agent.capacity == 16
    assert sent.records[-1][1].head == {"reason": "busy"}


async def test_a_request_whose_time_passed_while_it_waited_in_the_runner_costs_no_process(sent: Sent):
    killed: list[bool] = []
    agent = Agent(LAUNCH, sent, deadline_grace=1.0, on_overdue=lambda: killed.append(True))  # type: ignore[arg-type]
    runner = FakeRunner()
    agent.attach(runner)  # type: ignore[arg-type]
    await deliver(agent, request(1, ttl=1))
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
    await deliver(agent, request(1, ttl=1))
    await asyncio.wait_for(killed.wait(), 10)


async def test_a_request_the_runner_found_to_be_too_late_is_answered_504(
    agent: Agent, runner: FakeRunner, sent: Sent
):
    await deliver(agent, request(1))
    runner.say(frames.RESULT, 1, {"status": 499}, flags=frames.NOT_RUN)
    assert sent.results() == [(1, 504, False)]


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
    assert windows == [1, 2, 3]


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
