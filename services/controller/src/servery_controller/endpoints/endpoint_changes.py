"""Makes a change of who may query, how often, or that a rollout is canceled, hold before it is answered.

The change is committed here, but the leader, perhaps another process, tells the gateways. It is signalled which
endpoints to look at, and the caller is answered once its step has seen the change: by then the route is published.
The signal may be lost and the leader may be gone or busy, so the wait is bounded: polling finds what was signalled.
"""

import asyncio
from collections.abc import Mapping

import structlog

from servery_common.contracts import subjects
from servery_common.contracts.routes import EndpointsChanged
from servery_common.messaging.port import Bus
from servery_common.postgres.pool import OUTAGE, Pool
from servery_controller.endpoints import store
from servery_controller.reconcile.hints import Hints

log = structlog.get_logger()

PATIENCE_SECONDS = 2.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.01, 0.1


class EndpointChanges:
    """``patience`` is how long, in seconds, an answer may be held back."""

    def __init__(self, pool: Pool, bus: Bus, patience: float = PATIENCE_SECONDS) -> None:
        self._pool = pool
        self._bus = bus
        self._patience = patience

    async def published(self, generations: Mapping[str, int]) -> None:
        """Return when gateways were told of these generations, by endpoint id, or when patience ends.

        Call after the commit. Raises nothing: what is committed comes to hold in any case.
        """
        if not generations:
            return
        # Controllers hear their own signals, too: also the leader needs no other hint.
        await self._bus.signal(
            subjects.endpoints_changed(), EndpointsChanged(endpoint_ids=tuple(generations))
        )
        pause = FIRST_PAUSE_SECONDS
        try:
            async with asyncio.timeout(self._patience):
                while not await store.all_observed(self._pool, generations):
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        except OUTAGE as error:  # TimeoutError is one of them
            log.warning("change_not_yet_published", endpoint_ids=list(generations), reason=repr(error))


class ChangeSignals:
    """Hears, in every controller, which endpoints were changed: whoever leads looks at them at once."""

    def __init__(self, hints: Hints) -> None:
        self._hints = hints

    async def heard(self, changed: EndpointsChanged) -> None:
        """Take a signal in."""
        for endpoint_id in changed.endpoint_ids:
            self._hints.add(endpoint_id)
