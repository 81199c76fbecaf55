"""Holding in the dispatcher, with a transport that only writes down."""

import pytest
from tests.unit.gateway.test_dispatcher import DONE, Notebook, places, reroute, route, submit

from servery_common.contracts.routes import EndpointRoute
from servery_common.errors import ResourceExhausted, Unavailable
from servery_gateway.dispatch_limits import DispatchLimits
from servery_gateway.dispatcher import Dispatcher
from servery_gateway.queue_policy import COLD_RETRY_AFTER


def cold_route(*replicas: str, max_held: int = 3, **told) -> EndpointRoute:
    """A route of a served entity at zero, if there are no replicas."""
    made = route(*replicas, max_queued=1)
    entity = made.served_entities[0].model_copy(update={"holds": not replicas, **told})
    return made.model_copy(update={"served_entities": (entity,), "max_held": max_held})


def cold(**fields) -> Dispatcher:
    made = Dispatcher(Notebook(), DispatchLimits(60.0, 60.0, max_queued_bytes=7), lambda: 0.0)
    reroute(made, cold_route(**fields))
    return made


async def test_the_first_held_request_asks_in_the_same_turn() -> None:
    one = cold()
    assert not one.waker.wanted.is_set()
    submit(one)
    assert one.waker.wanted.is_set()
    assert [(each.served_entity_id, each.held) for each in one.waker.held()] == [("s1", 1)]


async def test_a_full_cold_queue_is_no_overload() -> None:
    one = cold()
    held = [submit(one, str(number)) for number in range(3)]
    with pytest.raises(ResourceExhausted) as refused:
        submit(one)
    assert refused.value.retry_after == COLD_RETRY_AFTER
    pool = one.pool("s1")
    assert pool is not None
    assert not pool.policy.overloaded
    reroute(one, cold_route("a"))
    # Two wait where usually one may: there is room as long as what was held is not gone.
    late = submit(one, "late")
    for ticket in (*held, late):
        one.on_accept(ticket.attempt)
        one.on_result(ticket.attempt, DONE)
    assert [request_id for _, request_id in places(one)] == ["0", "1", "2", "late"]
    assert not pool.policy.overloaded
    assert (pool.shared.count, pool.shared.held, pool.shared.bodies) == (0, 0, 0)


async def test_held_bodies_are_bounded_in_bytes() -> None:
    one = cold(max_held=100)
    for _ in range(3):
        submit(one)  # of two bytes each
    with pytest.raises(ResourceExhausted):
        submit(one)


async def test_a_lost_connection_ends_what_is_held_at_once() -> None:
    one = cold()
    ticket = submit(one)
    one.on_disconnect()
    assert isinstance(ticket.outcome.exception(), Unavailable)
    assert one.waker.held() == ()


async def test_a_problem_is_told_only_when_nobody_is_ready() -> None:
    one = cold()
    ticket = submit(one)
    reroute(one, cold_route(holds=False, problem="no memory"))
    error = ticket.outcome.exception()
    assert isinstance(error, Unavailable)
    assert (error.reason, "no memory" in error.message) == ("cannot_start", True)
    with pytest.raises(Unavailable):
        submit(one)
    reroute(one, cold_route("a", problem="no memory"))
    submit(one)
    assert len(places(one)) == 1
