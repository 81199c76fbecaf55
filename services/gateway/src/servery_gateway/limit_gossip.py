"""What gateways tell each other so that limits hold for all of them together: demand, and calls that were counted."""

import asyncio
from collections.abc import Callable

from servery_common.contracts import subjects
from servery_common.contracts.quotas import GatewayCalls, GatewayDemand
from servery_common.messaging.port import Bus
from servery_gateway.quotas import WorkspaceQuotas
from servery_gateway.rate_limits import RateLimiter
from servery_gateway.shared_quota import ROUND

MAX_ENTRIES = 2000
"""Per message: about 120 bytes each, a fraction of NATS' limit of 1 MiB."""
CALLS_PAUSE = 0.01
"""Seconds between two messages about calls, of which a client may make several at once. Calls that two gateways let in
within this time may be more than the limit."""


class LimitGossip:
    """The quotas and rate limits of this gateway, kept together with those of the others."""

    def __init__(
        self,
        quotas: WorkspaceQuotas,
        limiter: RateLimiter,
        called: asyncio.Event,
        gateway_id: str,
        bus: Callable[[], Bus | None],
    ) -> None:
        self._quotas = quotas
        self._limiter = limiter
        self._called = called
        self._gateway_id = gateway_id
        self._bus = bus

    async def listen(self, bus: Bus) -> None:
        """Hear the other gateways from now on."""
        await bus.on_signal(subjects.ALL_GATEWAY_DEMANDS, GatewayDemand, self._demand_heard)
        await bus.on_signal(subjects.ALL_GATEWAY_CALLS, GatewayCalls, self._calls_heard)

    async def tell_demand(self) -> None:
        """End a round of the quotas and tell of it, for ever."""
        subject = subjects.gateway_demand(self._gateway_id)
        while True:
            await asyncio.sleep(ROUND)
            bus = self._connected()
            demands = self._quotas.settle(alone=bus is None)
            if bus is not None:
                for at in range(0, len(demands), MAX_ENTRIES):
                    some = tuple(demands[at : at + MAX_ENTRIES])
                    await bus.signal(subject, GatewayDemand(gateway_id=self._gateway_id, workspaces=some))

    async def tell_calls(self) -> None:
        """Tell of calls as soon as there are some, for ever. What nobody can hear is dropped."""
        subject = subjects.gateway_calls(self._gateway_id)
        while True:
            await self._called.wait()
            self._called.clear()
            bus = self._connected()
            counts = self._limiter.take_untold()
            if bus is not None:
                for at in range(0, len(counts), MAX_ENTRIES):
                    some = tuple(counts[at : at + MAX_ENTRIES])
                    await bus.signal(subject, GatewayCalls(gateway_id=self._gateway_id, counts=some))
            await asyncio.sleep(CALLS_PAUSE)

    def _connected(self) -> Bus | None:
        bus = self._bus()
        return bus if bus is not None and bus.connected else None

    async def _demand_heard(self, told: GatewayDemand) -> None:
        if told.gateway_id != self._gateway_id:
            self._quotas.hear(told)

    async def _calls_heard(self, told: GatewayCalls) -> None:
        if told.gateway_id != self._gateway_id:
            self._limiter.hear(told)
