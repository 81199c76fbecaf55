"""Ask for replicas of served entities at zero that requests wait for: at once, and each second while they wait."""

import asyncio
from collections.abc import Callable
from math import inf
from weakref import WeakKeyDictionary

from servery_common.contracts import subjects
from servery_common.contracts.scaling import GatewayWake, HeldRequests
from servery_common.messaging.port import Bus
from servery_gateway.entity_pool import EntityPool

AGAIN_SECONDS = 1.0
"""A signal may be lost, or be heard by a controller that cannot reach its database."""


class Waker:
    """Knows which served entities are to be woken."""

    def __init__(self) -> None:
        self._pools: set[EntityPool] = set()
        self._asked: set[EntityPool] = set()
        """To be told once, though nothing is held."""
        self._asked_at: WeakKeyDictionary[EntityPool, float] = WeakKeyDictionary()
        self.wanted = asyncio.Event()
        """Set when one is asked for that was not before."""

    def need(self, pool: EntityPool) -> None:
        """A request waits for a served entity at zero. Cheap to repeat."""
        if pool not in self._pools:
            self._pools.add(pool)
            self.wanted.set()

    def ask(self, pool: EntityPool, now: float) -> None:
        """Something that is not held would be sent to a served entity at zero. Told once a second at most."""
        if now - self._asked_at.get(pool, -inf) >= AGAIN_SECONDS:
            self._asked_at[pool] = now
            self._asked.add(pool)
            self.wanted.set()

    def held(self) -> tuple[HeldRequests, ...]:
        """Return who is to be woken, and what is held; who is held no longer is forgotten."""
        self._pools = {pool for pool in self._pools if pool.is_held}
        asked = {pool for pool in self._asked if pool.holding}
        self._asked.clear()
        return tuple(
            HeldRequests(
                endpoint_id=pool.endpoint_id,
                served_entity_id=pool.served_entity_id,
                held=len(pool.queue),
            )
            for pool in self._pools | asked
        )


async def send_wakes(waker: Waker, gateway_id: str, bus: Callable[[], Bus | None]) -> None:
    """Tell for ever. Nothing is lost when nobody can hear it: what waits then fails with the connection."""
    subject = subjects.gateway_wake(gateway_id)
    while True:
        held = waker.held()
        if not held:
            await waker.wanted.wait()
        else:
            current = bus()
            if current is not None and current.connected:
                await current.signal(subject, GatewayWake(gateway_id=gateway_id, entities=held))
            try:
                async with asyncio.timeout(AGAIN_SECONDS):
                    await waker.wanted.wait()
            except TimeoutError:
                continue
        waker.wanted.clear()
