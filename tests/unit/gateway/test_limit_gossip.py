"""Two gateways on one bus, which keep to limits together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from servery_common.contracts.access import Identity
from servery_common.contracts.quotas import GatewayCalls, GatewayDemand, WorkspaceQuota
from servery_common.contracts.routes import EndpointRoute, RateLimit
from servery_common.errors import RequestLimitExceeded
from servery_common.messaging.testing import InMemoryBus
from servery_gateway.limit_gossip import LimitGossip
from servery_gateway.quotas import WorkspaceQuotas
from servery_gateway.rate_limits import RateLimiter
from servery_gateway.routing_table import Snapshot

ANN = Identity(principal_id="p1", user_name="ann", workspace_id="1")
ROUTE = EndpointRoute(
    endpoint_id="e", workspace_id="1", name="iris", status="serving", rate_limits=(RateLimit(calls=5),)
)


class Gateway:
    def __init__(self, gateway_id: str, bus: InMemoryBus) -> None:
        called = asyncio.Event()
        self.quotas = WorkspaceQuotas()
        self.quotas.update(Snapshot(quotas={"1": WorkspaceQuota(workspace_id="1", qps=1)}))
        self.limiter = RateLimiter(called=called.set)
        self.gossip = LimitGossip(self.quotas, self.limiter, called, gateway_id, lambda: bus)

    def calls(self) -> int:
        """How many calls are let in before one is refused."""
        for count in range(100):
            try:
                self.limiter.admit(ROUTE, ANN)
            except RequestLimitExceeded:
                return count
        raise AssertionError("there is no limit")

    def requests(self, most: int) -> int:
        """How many of so many requests the workspace's quota lets in."""
        for count in range(most):
            try:
                self.quotas.admit("1")
            except RequestLimitExceeded:
                return count
        return most


@asynccontextmanager
async def running(gateway: Gateway, bus: InMemoryBus) -> AsyncIterator[None]:
    await gateway.gossip.listen(bus)
    tasks = [
        asyncio.create_task(gateway.gossip.tell_demand()),
        asyncio.create_task(gateway.gossip.tell_calls()),
    ]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Pair:
    """Two gateways, and what they told each other so far."""

    def __init__(self, bus: InMemoryBus) -> None:
        self.bus = bus
        self.first, self.second = Gateway("g1", bus), Gateway("g2", bus)
        self._demands: asyncio.Queue[str] = asyncio.Queue()
        self._calls: asyncio.Queue[str] = asyncio.Queue()

    async def listen(self) -> None:
        """Hear both, after they have heard each other."""

        async def demand(told: GatewayDemand) -> None:
            self._demands.put_nowait(told.gateway_id)

        async def calls(told: GatewayCalls) -> None:
            self._calls.put_nowait(told.gateway_id)

        await self.bus.on_signal("servery.signals.gateway.demand.*", GatewayDemand, demand)
        await self.bus.on_signal("servery.signals.gateway.calls.*", GatewayCalls, calls)

    async def demand_told(self) -> str:
        return await asyncio.wait_for(self._demands.get(), 10)

    async def calls_told(self) -> str:
        return await asyncio.wait_for(self._calls.get(), 10)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair(InMemoryBus())
    async with AsyncExitStack() as stack:
        for gateway in (pair.first, pair.second):
            await stack.enter_async_context(running(gateway, pair.bus))
        await pair.listen()
        yield pair


async def test_calls_let_in_by_one_gateway_count_in_the_other(pair: Pair) -> None:
    pair.first.limiter.admit(ROUTE, ANN)
    pair.first.limiter.admit(ROUTE, ANN)
    assert await pair.calls_told() == "g1"
    assert pair.second.calls() == 3
    assert await pair.calls_told() == "g2"
    assert pair.first.calls() == 0


async def test_a_quota_that_one_gateway_used_up_is_used_up_in_the_other(pair: Pair) -> None:
    assert pair.first.requests(most=10) == 10
    assert await pair.demand_told() == "g1"
    # A slow machine may take a second or two, in which as many requests may come.
    assert pair.second.requests(most=10) <= 3


async def test_what_two_gateways_let_in_at_once_is_owed_by_both(pair: Pair) -> None:
    assert pair.first.requests(most=10) == pair.second.requests(most=10) == 10
    for _ in range(6):
        await pair.demand_told()
    assert pair.first.requests(most=10) == pair.second.requests(most=10) == 0


async def test_nobody_tells_of_nothing(pair: Pair) -> None:
    pair.first.quotas.admit("1")
    assert [await pair.demand_told() for _ in range(3)] == ["g1"] * 3
    assert {subject for subject, _ in pair.bus.signals} == {"servery.signals.gateway.demand.g1"}
