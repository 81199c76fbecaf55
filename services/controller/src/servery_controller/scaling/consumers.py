"""What is heard about replica counts: the scaler's requests, and gateways that hold requests for entities at zero."""

import asyncio
from collections.abc import Callable

import structlog

from servery_common.contracts.scaling import GatewayWake, HeldRequests, ScaleAnswer, ScaleRequest
from servery_common.errors import Unavailable
from servery_common.postgres.pool import OUTAGE
from servery_controller.scaling.scaling_service import Scaling

log = structlog.get_logger()

WAKE_PAUSE_SECONDS = 0.8
"""A wake of the same served entity this soon after another is not looked at: each gateway repeats it every second."""


class ScaleRequests:
    """The scaler's wishes."""

    def __init__(self, scaling: Scaling) -> None:
        self._scaling = scaling

    async def handle(self, request: ScaleRequest) -> ScaleAnswer:
        """Set the replica count. Repeating it changes nothing. Raises Unavailable without the database."""
        try:
            return await self._scaling.scale(request)
        except OUTAGE as error:
            raise Unavailable("The database cannot be reached right now. Try again.") from error


class Wakes:
    """Gateways that hold requests. Every controller hears them; which one acts does not matter.

    ``clock`` returns monotonic seconds.
    """

    def __init__(self, scaling: Scaling, clock: Callable[[], float]) -> None:
        self._scaling = scaling
        self._clock = clock
        self._looked_at: dict[str, float] = {}
        """By served entity id."""

    async def heard(self, wake: GatewayWake) -> None:
        """Wake what was not looked at a moment ago."""
        now = self._clock()
        self._looked_at = {i: at for i, at in self._looked_at.items() if now - at < WAKE_PAUSE_SECONDS}
        asked = [each for each in wake.entities if each.served_entity_id not in self._looked_at]
        self._looked_at |= {each.served_entity_id: now for each in asked}
        await asyncio.gather(*[self._wake(each) for each in asked])

    async def _wake(self, asked: HeldRequests) -> None:
        try:
            await self._scaling.wake(asked)
        except OUTAGE as error:
            log.warning("wake_postponed", served_entity_id=asked.served_entity_id, reason=repr(error))
