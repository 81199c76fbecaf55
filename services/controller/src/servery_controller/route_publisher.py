"""Publishes the routing snapshot gateways score from, to a KV bucket.

Skips a snapshot that says nothing new. Revisions grow across controllers: the leader's epoch is their
high part, so a stale leader's snapshot never replaces a newer one.
"""

from servery_common.contracts import subjects
from servery_common.contracts.routes import EndpointRoute
from servery_common.messaging.port import Bus

EPOCH_SHIFT = 32


class RoutePublisher:
    """Remembers what it published, for as long as it leads."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._published: dict[str, EndpointRoute] = {}
        self._count = 0

    async def publish(self, route: EndpointRoute, epoch: int) -> bool:
        """Publish unless it is what was published last. True when it went out; returns after NATS has it."""
        if self._published.get(route.endpoint_id) == route:
            return False
        self._count += 1
        stamped = route.model_copy(update={"revision": (epoch << EPOCH_SHIFT) + self._count})
        await self._bus.kv_put(subjects.ROUTES_BUCKET, route.endpoint_id, stamped)
        self._published[route.endpoint_id] = route
        return True

    async def withdraw(self, endpoint_id: str) -> None:
        """Tell gateways that the endpoint is gone. Repeating it changes nothing."""
        self._published.pop(endpoint_id, None)
        await self._bus.kv_delete(subjects.ROUTES_BUCKET, endpoint_id)

    async def withdraw_all_but(self, endpoint_ids: set[str]) -> list[str]:
        """Remove routes of endpoints that are no longer known. Returns their ids."""
        stale = [key for key in await self._bus.kv_keys(subjects.ROUTES_BUCKET) if key not in endpoint_ids]
        for endpoint_id in stale:
            await self.withdraw(endpoint_id)
        return stale

    def forget(self) -> None:
        """Publish everything again, with fresh revisions: a new term as leader, or NATS lost its data."""
        self._published.clear()
        self._count = 0
