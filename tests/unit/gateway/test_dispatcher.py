"""The dispatcher with a transport that only writes down; times are the event loop's, none is waited for."""

import asyncio

import pytest

from servery_common.contracts.routes import EndpointRoute, ReplicaRoute, ServedEntityRoute
from servery_common.errors import ResourceExhausted, ServeryError, Unavailable
from servery_gateway.answer_stream import ACKNOWLEDGE_BYTES, HANDED_OUT_BYTES, AnswerStream, BrokenOff
from servery_gateway.dispatch_limits import DispatchLimits
from servery_gateway.dispatcher import Dispatcher
from servery_gateway.entity_pool import EntityWithdrawn, ScoringRequest, Ticket
from servery_gateway.request_trace import UNTRACED
from servery_gateway.routing_table import Change
from servery_gateway.transport import Outcome, ReplicaRequest

DONE = Outcome(200, "application/json", b"{}")


class Notebook:
    """A transport without replicas."""

    def __init__(self) -> None:
        self.connected = True
        self.congested = False
        self.routes: dict[str, EndpointRoute] = {}
        """What the dispatcher was told last."""
        self.sent: list[tuple[str, ReplicaRequest]] = []
        self.cancelled: list[tuple[str, int]] = []
        self.acknowledged: list[tuple[str, int, int]] = []
        self.probed: list[str] = []
        self.waiting: set[int] = set()

    def send(self, replica_id: str, request: ReplicaRequest) -> None:
        self.sent.append((replica_id, request))

    def cancel(self, replica_id: str, id: int) -> None:
        self.cancelled.append((replica_id, id))

    def acknowledge(self, replica_id: str, id: int, count: int) -> None:
        self.acknowledged.append((replica_id, id, count))

    def probe(self, replica_id: str) -> None:
        self.probed.append(replica_id)

    def is_waiting(self, replica_id: str, id: int) -> bool:
        return id in self.waiting

    async def settle(self) -> None:
        pass


def route(*replicas: str, slots: int = 1, max_queued: int = 2, entity: str = "s1") -> EndpointRoute:
    return EndpointRoute(
        endpoint_id="e1",
        workspace_id="1",
        name="e",
        created_at_ms=1,
        status="serving",
        max_queued=max_queued,
        served_entities=(
            ServedEntityRoute(
                served_entity_id=entity,
                name=entity,
                traffic_percentage=100,
                replicas=tuple(ReplicaRoute(replica_id=name, slots=slots) for name in replicas),
            ),
        ),
    )


def dispatcher(
    *replicas: str, accept_timeout: float = 60.0, replica_wait: float = 60.0, **fields
) -> Dispatcher:
    made = Dispatcher(Notebook(), DispatchLimits(accept_timeout, replica_wait), lambda: 0.0)
    reroute(made, route(*replicas, **fields))
    return made


def reroute(of: Dispatcher, *routes: EndpointRoute) -> None:
    """Route by these from now on."""
    assert isinstance(of.transport, Notebook)
    before, after = of.transport.routes, {one.endpoint_id: one for one in routes}
    of.follow([Change(key, before.get(key), after.get(key)) for key in {**before, **after}])
    of.transport.routes = after


def submit(to: Dispatcher, request_id: str = "r", seconds: float = 60.0, to_entity: str = "s1") -> Ticket:
    deadline = asyncio.get_running_loop().time() + seconds
    return to.submit(ScoringRequest(to_entity, "application/json", request_id, b"{}", deadline, UNTRACED))


def require_room(of: Dispatcher, entity: str = "s1", length: int = 2) -> None:
    of.require_room(entity, asyncio.get_running_loop().time() + 60.0, length)


def places(of: Dispatcher) -> list[tuple[str, str]]:
    assert isinstance(of.transport, Notebook)
    return [(replica, request.request_id) for replica, request in of.transport.sent]


async def test_requests_wait_in_order_for_a_free_slot() -> None:
    one = dispatcher("a")
    first, second, third = (submit(one, str(number)) for number in (1, 2, 3))
    assert places(one) == [("a", "1")]
    one.on_result(first.attempt, DONE)
    assert places(one) == [("a", "1"), ("a", "2")]
    one.on_result(second.attempt, DONE)
    one.on_result(third.attempt, DONE)
    assert [ticket.outcome.result() for ticket in (first, second, third)] == [DONE] * 3
    assert one.unfinished == 0


async def test_a_full_queue_takes_nothing_more() -> None:
    one = dispatcher("a", max_queued=1)
    submit(one)
    submit(one)
    with pytest.raises(ResourceExhausted):
        submit(one)


async def test_the_queue_is_bounded_for_all_served_entities_of_an_endpoint_together() -> None:
    one = dispatcher(max_queued=2)
    blue, green = route(max_queued=2), route("g", max_queued=2, entity="s2")
    both = blue.model_copy(update={"served_entities": blue.served_entities + green.served_entities})
    reroute(one, both, route(entity="other").model_copy(update={"endpoint_id": "e2"}))
    submit(one), submit(one)
    submit(one, to_entity="s2")  # Its replica has a slot.
    with pytest.raises(ResourceExhausted):
        submit(one, to_entity="s2")
    submit(one, to_entity="other")


async def test_the_bodies_that_wait_are_bounded_but_one_always_may() -> None:
    one = dispatcher("a", max_queued=9)
    one.limits.max_queued_bytes = 5
    running, first, second = submit(one), submit(one), submit(one)
    require_room(one, length=1)
    with pytest.raises(ResourceExhausted):
        require_room(one, length=2)
    with pytest.raises(ResourceExhausted):
        submit(one)
    one.abandon(second)
    one.on_result(running.attempt, DONE)
    assert first.attempt
    require_room(one, length=1000)


async def test_more_may_wait_when_more_slots_are_ready() -> None:
    one = dispatcher("a", slots=8, max_queued=2)  # Made for a replica of four.
    for _ in range(8 + 4):
        submit(one)
    with pytest.raises(ResourceExhausted) as refused:
        submit(one)
    assert (refused.value.reason, refused.value.retry_after) == ("queue_full", 1)


async def test_what_a_full_queue_would_refuse_is_known_before_its_body_is_read() -> None:
    one = dispatcher("a", max_queued=1)
    require_room(one)
    first = submit(one)
    require_room(one)
    waiting = submit(one)
    with pytest.raises(ResourceExhausted):
        require_room(one)
    one.on_result(first.attempt, DONE)
    require_room(one)
    one.on_result(waiting.attempt, DONE)
    reroute(one, route("a", max_queued=0))
    require_room(one)  # There is a slot: it would not have to wait.
    require_room(one, "unknown")  # Learnt by `submit`, which may find what came instead.


async def test_nothing_is_taken_without_a_connection() -> None:
    one = dispatcher("a")
    assert isinstance(one.transport, Notebook)
    one.transport.connected = False
    with pytest.raises(Unavailable):
        submit(one)


async def test_a_refused_request_moves_and_keeps_its_place_in_front() -> None:
    one = dispatcher("a", "b")
    first, _, waiting = submit(one, "1"), submit(one, "2"), submit(one, "3")
    refuser = places(one)[0][0]
    one.on_refuse(first.attempt, "busy")
    assert waiting.attempt == 0
    second_id = 2
    one.on_result(second_id, DONE)
    assert places(one)[2] == ("b" if refuser == "a" else "a", "1")


async def test_a_late_answer_to_an_attempt_that_was_given_up_finds_nobody() -> None:
    one = dispatcher("a", "b")
    ticket = submit(one)
    old = ticket.attempt
    one.on_refuse(old, "draining")
    assert ticket.attempt != old
    one.on_accept(old)
    one.on_result(old, DONE)
    assert ticket.accepted_at is None
    assert not ticket.outcome.done()
    one.on_result(ticket.attempt, DONE)
    assert ticket.outcome.result() == DONE


async def test_after_accept_nothing_makes_a_request_run_again() -> None:
    for loss in ("gone", "refused", "lost"):
        one = dispatcher("a", "b")
        ticket = submit(one)
        replica = places(one)[0][0]
        one.on_accept(ticket.attempt)
        if loss == "gone":
            one.on_gone(replica)
        elif loss == "refused":
            one.on_refuse(ticket.attempt, "busy")
        else:
            one.on_result(ticket.attempt, Outcome(500, "", b"", lost=True))
        assert isinstance(ticket.outcome.exception(), Unavailable)
        assert len(places(one)) == 1


async def test_an_agent_that_is_gone_loses_what_it_had_not_accepted_to_another() -> None:
    one = dispatcher("a", "b")
    ticket = submit(one)
    gone = places(one)[0][0]
    one.on_gone(gone)
    assert places(one)[1][0] != gone
    assert not ticket.outcome.done()


async def test_silence_cancels_first_and_then_asks_another() -> None:
    one = dispatcher("a", "b", accept_timeout=0.0)
    ticket = submit(one)
    assert isinstance(one.transport, Notebook)
    silent, attempt = places(one)[0][0], ticket.attempt
    async with asyncio.timeout(5):
        while ticket.attempt == attempt:  # noqa: ASYNC110 - a few turns of the loop, no waiting
            await asyncio.sleep(0)
    one.on_accept(ticket.attempt)
    assert one.transport.cancelled == [(silent, attempt)]
    assert places(one)[1][0] != silent


async def test_an_accept_that_arrives_while_the_transport_settles_counts() -> None:
    one = dispatcher("a", "b", accept_timeout=0.0)
    ticket = submit(one)
    assert isinstance(one.transport, Notebook)
    settled = asyncio.Event()

    async def settle() -> None:
        one.on_accept(ticket.attempt)
        settled.set()

    one.transport.settle = settle  # type: ignore[method-assign]
    await settled.wait()
    await asyncio.sleep(0)
    assert one.transport.cancelled == []
    assert len(places(one)) == 1
    one.on_result(ticket.attempt, DONE)


async def test_a_long_body_that_waits_for_its_turn_here_is_no_silence_of_the_replica() -> None:
    one = dispatcher("a", "b", accept_timeout=0.0)
    ticket = submit(one)
    assert isinstance(one.transport, Notebook)
    one.transport.waiting = {ticket.attempt}
    looked = asyncio.Event()
    asked = 0

    async def settle() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            looked.set()

    one.transport.settle = settle  # type: ignore[method-assign]
    await asyncio.wait_for(looked.wait(), 10)
    assert one.transport.cancelled == []
    assert len(places(one)) == 1
    one.on_accept(ticket.attempt)
    one.on_result(ticket.attempt, DONE)


async def test_what_a_replica_that_is_gone_had_is_cancelled_should_it_come_back() -> None:
    one = dispatcher("a", slots=2)
    accepted, fresh = submit(one), submit(one)
    one.on_accept(accepted.attempt)
    attempts = [accepted.attempt, fresh.attempt]
    one.on_gone("a")
    assert isinstance(one.transport, Notebook)
    assert one.transport.cancelled == [("a", attempt) for attempt in attempts]


async def test_the_body_of_a_request_that_ended_is_not_held_by_whoever_holds_its_ticket() -> None:
    one = dispatcher("a")
    ticket = submit(one)
    assert ticket.request.body
    one.on_result(ticket.attempt, DONE)
    assert not ticket.request.body


async def test_a_lost_connection_fails_everything_at_once() -> None:
    one = dispatcher("a")
    tickets = [submit(one) for _ in range(3)]
    one.on_disconnect()
    assert all(isinstance(ticket.outcome.exception(), Unavailable) for ticket in tickets)
    assert one.unfinished == 0
    (pool,) = one.pools()
    assert (pool.load.in_flight, pool.load.queued) == (0, 0)
    assert len(places(one)) == 1


async def test_who_leaves_frees_the_slot_and_cancels_the_work() -> None:
    one = dispatcher("a")
    first, second = submit(one, "1"), submit(one, "2")
    assert isinstance(one.transport, Notebook)
    one.abandon(first)
    assert one.transport.cancelled == [("a", 1)]
    assert places(one)[1] == ("a", "2")
    one.abandon(second)
    one.abandon(second)
    assert one.unfinished == 0
    assert first.outcome.exception() is not None
    assert second.outcome.exception() is not None


async def test_a_request_that_waits_learns_that_its_entity_left() -> None:
    one = dispatcher()
    ticket = submit(one)
    reroute(one, route("a", entity="s2"))
    assert isinstance(ticket.outcome.exception(), EntityWithdrawn)
    with pytest.raises(EntityWithdrawn):
        submit(one)


async def test_a_replica_that_stays_in_the_route_keeps_its_count() -> None:
    one = dispatcher("a")
    submit(one, "1")
    reroute(one, route("a", "b"))
    submit(one, "2")
    assert places(one) == [("a", "1"), ("b", "2")]


async def test_the_deadline_passes_with_the_request_as_time_left() -> None:
    one = dispatcher("a")
    submit(one, seconds=2.0)
    assert isinstance(one.transport, Notebook)
    assert 1000 < one.transport.sent[0][1].ttl_ms <= 2000


async def test_a_request_past_its_deadline_is_withdrawn_wherever_it_is() -> None:
    one = dispatcher("a")
    running, waiting = submit(one, seconds=0.0), submit(one, seconds=0.0)
    codes = []
    for ticket in (running, waiting):
        with pytest.raises(ServeryError) as caught:
            await ticket.outcome
        codes.append(caught.value.error_code)
    assert codes == ["DEADLINE_EXCEEDED"] * 2
    assert isinstance(one.transport, Notebook)
    assert ("a", 1) in one.transport.cancelled
    assert one.unfinished == 0


async def test_a_streamed_answer_keeps_its_slot_until_it_ends() -> None:
    one = dispatcher("a")
    first, second = submit(one, "1"), submit(one, "2")
    attempt = first.attempt
    one.on_stream(attempt, 200, "text/event-stream")
    stream = first.outcome.result()
    assert isinstance(stream, AnswerStream)
    one.on_piece(attempt, b"x")
    assert places(one) == [("a", "1")]
    one.on_stream_end(attempt, None, None)
    assert places(one) == [("a", "1"), ("a", "2")]
    assert [await stream.next(), await stream.next()] == [b"x", None]
    assert not second.is_over


async def test_replicas_are_told_which_streams_are_still_wanted() -> None:
    one = dispatcher("a", "b")
    first, second = submit(one), submit(one)
    attempts = [first.attempt, second.attempt]
    for attempt in attempts:
        one.on_stream(attempt, 200, "text/event-stream")
    one.abandon(first)
    one.probe()
    assert isinstance(one.transport, Notebook)
    assert one.transport.acknowledged == [("b", attempts[1], 0)]


async def test_a_client_that_leaves_a_stream_cancels_it() -> None:
    one = dispatcher("a")
    ticket = submit(one)
    attempt = ticket.attempt
    one.on_stream(attempt, 200, "text/event-stream")
    one.abandon(ticket)
    one.abandon(ticket)
    assert isinstance(one.transport, Notebook)
    assert one.transport.cancelled == [("a", attempt)]
    assert one.unfinished == 0


@pytest.mark.parametrize("failure", [DONE._replace(lost=True), DONE._replace(status=400)])
async def test_a_stream_that_breaks_off_says_why(failure: Outcome) -> None:
    one = dispatcher("a")
    ticket = submit(one)
    one.on_stream(ticket.attempt, 200, "text/event-stream")
    one.on_stream_end(ticket.attempt, failure, None)
    assert ticket.stream is not None
    with pytest.raises(Unavailable if failure.lost else BrokenOff):
        await ticket.stream.next()
    assert one.unfinished == 0


async def test_streams_end_with_their_replica_and_with_the_connection() -> None:
    one = dispatcher("a", "b")
    tickets = [submit(one, "1"), submit(one, "2")]
    for ticket in tickets:
        one.on_stream(ticket.attempt, 200, "text/event-stream")
    one.on_gone(places(one)[0][0])
    one.on_disconnect()
    for ticket in tickets:
        assert ticket.stream is not None
        with pytest.raises(Unavailable):
            await ticket.stream.next()


async def test_what_the_client_took_is_told_to_the_replica() -> None:
    one = dispatcher("a")
    ticket = submit(one)
    one.on_stream(ticket.attempt, 200, "text/event-stream")
    one.on_piece(ticket.attempt, b"x" * ACKNOWLEDGE_BYTES)
    assert ticket.stream is not None
    for _ in range(ACKNOWLEDGE_BYTES // HANDED_OUT_BYTES):
        await ticket.stream.next()
    asking = asyncio.create_task(ticket.stream.next())
    await asyncio.sleep(0)
    assert isinstance(one.transport, Notebook)
    assert one.transport.acknowledged == [("a", ticket.attempt, ACKNOWLEDGE_BYTES)]
    asking.cancel()


async def test_each_piece_the_client_takes_gives_a_stream_its_time_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = dispatcher("a")
    ticket = submit(one)
    one.on_stream(ticket.attempt, 200, "text/event-stream")
    one.on_piece(ticket.attempt, b"x" * 2 * HANDED_OUT_BYTES)
    assert ticket.stream is not None
    await ticket.stream.next()
    loop, later = asyncio.get_running_loop(), asyncio.get_running_loop().time() + 20
    monkeypatch.setattr(loop, "time", lambda: later)
    await ticket.stream.next()
    assert ticket.expires_at == later + ticket.request.stream_gap


async def test_a_request_that_leaves_the_middle_of_the_queue_is_passed_over() -> None:
    one = dispatcher("a", max_queued=3)
    running, first, second, third = (submit(one, str(number)) for number in range(4))
    one.abandon(second)
    (pool,) = one.pools()
    assert list(pool.queue) == [first, third]
    assert pool.load.queued == 2
    for ticket in (running, first, third):
        one.on_result(ticket.attempt, DONE)
    assert places(one) == [("a", "0"), ("a", "1"), ("a", "3")]


async def test_what_has_ended_is_kept_by_no_time_limit() -> None:
    one = dispatcher("a", accept_timeout=0.3)
    running, waiting = submit(one), submit(one)
    limits = [running.deadline, running.accept, waiting.deadline, waiting.wait]
    assert all(limits)
    one.on_result(running.attempt, DONE)
    one.abandon(waiting)
    assert not any(limits)
