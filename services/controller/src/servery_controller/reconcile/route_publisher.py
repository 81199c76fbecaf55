"""Publishes the routing snapshot gateways score from, to a KV bucket.

It follows the bucket itself: what counts as published is what is there, not what this process remembers to
have put. So a bucket that was lost, or that somebody else wrote to, is put right again.

A controller that was paused may wake up after another one took over and still hold a route that was right
once. Therefore a route is put only over the revision that was there *before* the state it was made from
was loaded: whoever wrote in between has newer state, and this put is refused (Conflict).
"""

import asyncio
from collections.abc import Callable

from servery_common.contracts import subjects
from servery_common.contracts.routes import EndpointRoute
from servery_common.errors import Conflict
from servery_common.messaging.port import Bus
from servery_common.metering import count_stale_write


class RoutePublisher:
    """``changed(endpoint_id)`` is called for what changed in the bucket and was not put from here."""

    def __init__(self, bus: Bus, changed: Callable[[str], None]) -> None:
        self._bus = bus
        self._changed = changed
        self._revisions: dict[str, int] = {}
        self._routes: dict[str, EndpointRoute] = {}
        self.caught_up = asyncio.Event()
        """Set once the bucket is known."""

    async def follow(self) -> None:
        """Keep up with the bucket, for ever."""
        async for change in self._bus.kv_watch(subjects.ROUTES_BUCKET, EndpointRoute):
            if change.caught_up:
                for endpoint_id in change.missing:
                    self._forget(endpoint_id, 0)
                self.caught_up.set()
            elif change.value is None:
                self._forget(change.key, change.revision)
            elif change.revision != self._revisions.get(change.key):
                self._revisions[change.key] = change.revision
                self._routes[change.key] = change.value
                self._changed(change.key)

    def revision(self, endpoint_id: str) -> int:
        """The revision of the endpoint's route that is there now; 0 when there never was one."""
        return self._revisions.get(endpoint_id, 0)

    def shows(self, route: EndpointRoute) -> bool:
        """Whether this very route is there."""
        return self._routes.get(route.endpoint_id) == route

    async def publish(self, route: EndpointRoute, *, over: int) -> None:
        """Put the route over revision ``over``; returns after NATS has it. Raises Conflict or Unavailable."""
        endpoint_id = route.endpoint_id
        try:
            revision = await self._bus.kv_put(subjects.ROUTES_BUCKET, endpoint_id, route, expected=over)
        except Conflict:
            count_stale_write("route")
            raise
        if revision >= self.revision(endpoint_id):
            self._revisions[endpoint_id] = revision
            self._routes[endpoint_id] = route

    async def withdraw(self, endpoint_id: str) -> None:
        """Tell gateways that the endpoint is gone. Repeating it changes nothing.

        Needs no fence: an endpoint that was deleted never comes back.
        """
        if endpoint_id in self._routes or not self.caught_up.is_set():
            await self._bus.kv_delete(subjects.ROUTES_BUCKET, endpoint_id)
            self._routes.pop(endpoint_id, None)

    async def published(self) -> list[str]:
        """Ids of the endpoints that have a route."""
        return await self._bus.kv_keys(subjects.ROUTES_BUCKET)

    def _forget(self, endpoint_id: str, revision: int) -> None:
        self._revisions[endpoint_id] = revision
        if self._routes.pop(endpoint_id, None) is not None:
            self._changed(endpoint_id)
