"""When copies are made, with a transport that only writes down; what becomes of them is in the integration tests."""

import asyncio

from tests.unit.gateway.test_dispatcher import DONE, Notebook, places, reroute, route, submit

from servery_common.contracts.routes import EndpointRoute, ReplicaRoute, ServedEntityRoute
from servery_gateway.dispatch_limits import DispatchLimits
from servery_gateway.dispatcher import Dispatcher
from servery_gateway.http import Answer
from servery_gateway.loop_lag import IN_A_ROW, LoopLag
from servery_gateway.routing_table import Change
from servery_gateway.shadows import MAX_ANSWER_BYTES, Shadows


def with_shadow(percentage: int = 100) -> EndpointRoute:
    made = route("a", slots=100)
    shadow = ServedEntityRoute(
        served_entity_id="s2",
        name="s2",
        traffic_percentage=0,
        replicas=(ReplicaRoute(replica_id="b", slots=100),),
        shadow_percentage=percentage,
    )
    return made.model_copy(update={"served_entities": (*made.served_entities, shadow)})


class Gateway:
    """The parts that make copies."""

    def __init__(self) -> None:
        self.transport = Notebook()
        self.lag = LoopLag(limit=0.1)
        self.dispatcher = Dispatcher(self.transport, DispatchLimits(60.0, 60.0), lambda: 0.0)
        self.shadows = Shadows(self.dispatcher, self.lag, lambda: 0.0)
        self.route = with_shadow()
        reroute(self.dispatcher, self.route)
        self.shadows.follow([Change("e1", None, self.route)])

    async def answer(self, request_id: str = "r", to_entity: str = "s1", answer: bytes = b"{}") -> None:
        """Have one request answered, and see to its copy."""
        ticket = submit(self.dispatcher, request_id, to_entity=to_entity)
        self.dispatcher.on_result(ticket.attempt, DONE)
        self.shadows.answered(ticket, b"{}", Answer(200, answer))
        await asyncio.sleep(0)

    def copies(self) -> list[str]:
        return [request_id for replica, request_id in places(self.dispatcher) if replica == "b"]

    def skipped(self) -> int:
        tally = self.shadows.tallies.changing("s2")
        assert tally is not None
        return tally.skipped


async def test_a_copy_leaves_after_the_turn_that_answered() -> None:
    gateway = Gateway()
    ticket = submit(gateway.dispatcher)
    gateway.dispatcher.on_result(ticket.attempt, DONE)
    gateway.shadows.answered(ticket, b"{}", Answer(200, b"{}"))
    assert gateway.copies() == []
    await asyncio.sleep(0)
    assert gateway.copies() == ["r"]


async def test_a_late_gateway_makes_none() -> None:
    gateway = Gateway()
    for _ in range(IN_A_ROW):
        gateway.lag.note(1.0)
    await gateway.answer()
    assert (gateway.copies(), gateway.skipped()) == ([], 1)


async def test_none_are_made_while_nats_lags_behind_or_is_gone() -> None:
    gateway = Gateway()
    gateway.transport.congested = True
    await gateway.answer()
    gateway.transport.congested = False
    ticket = submit(gateway.dispatcher)
    gateway.dispatcher.on_result(ticket.attempt, DONE)
    gateway.transport.connected = False
    gateway.shadows.answered(ticket, b"{}", Answer(200, b"{}"))
    await asyncio.sleep(0)
    assert (gateway.copies(), gateway.skipped()) == ([], 2)


async def test_none_is_made_of_a_long_answer() -> None:
    gateway = Gateway()
    await gateway.answer(answer=b"x" * (MAX_ANSWER_BYTES + 1))
    assert (gateway.copies(), gateway.skipped()) == ([], 1)


async def test_what_a_shadow_answered_itself_is_not_compared_with_it() -> None:
    gateway = Gateway()
    await gateway.answer("mine", to_entity="s2")
    assert gateway.copies() == ["mine"]
    assert gateway.skipped() == 0


async def test_copies_end_with_the_tag_and_with_the_endpoint() -> None:
    gateway = Gateway()
    without = with_shadow(percentage=0)
    gateway.shadows.follow([Change("e1", gateway.route, without)])
    await gateway.answer()
    assert (gateway.copies(), gateway.skipped()) == ([], 0)
    gateway.shadows.follow([Change("e1", without, None)])
    assert gateway.shadows.tallies.read() == []


async def test_copies_do_not_enter_the_estimates_of_the_queue() -> None:
    gateway = Gateway()
    await gateway.answer()
    copy = next(request for replica, request in gateway.transport.sent if replica == "b")
    gateway.dispatcher.on_accept(copy.id)
    gateway.dispatcher.on_result(copy.id, DONE)
    pool = gateway.dispatcher.pool("s2")
    assert pool is not None
    assert pool.policy.service_time is None
    assert (pool.load.in_flight, gateway.dispatcher.unfinished) == (0, 0)
