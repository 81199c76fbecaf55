"""Ask the controller about a token this gateway does not know: it may be so new that news of it is under way.

Anyone can send unknown tokens, so what they cost the controller is bounded: each is asked about once a second,
so many questions may be open at a time, and so many may be asked a minute. Beyond that, and when the controller does
not answer, an unknown token stays unknown.
"""

import asyncio
from collections.abc import Callable

from servery_common.contracts import subjects
from servery_common.contracts.access import FindToken, TokenFound
from servery_common.errors import ServeryError
from servery_common.messaging.port import Bus
from servery_gateway.sliding_window import SlidingWindow

TIMEOUT = 1.0
"""Seconds the controller may take."""
UNKNOWN_SECONDS = 1.0
"""How long a token is not asked about again when the answer was no, or there was none."""
MAX_UNKNOWN = 4096
"""Tokens remembered as unknown."""
MAX_OPEN = 32
"""Questions under way at a time."""
MAX_PER_MINUTE = 3000
"""Questions. Far above how fast people and programs get new tokens, far below what the controller can answer."""


class TokenFinder:
    """Asks; ``bus`` returns the bus once there is one, ``now`` the seconds of a clock that never goes back."""

    def __init__(self, bus: Callable[[], Bus | None], now: Callable[[], float]) -> None:
        self._bus = bus
        self._now = now
        self._open: dict[str, asyncio.Task[TokenFound | None]] = {}
        self._unknown: dict[str, float] = {}
        """Token -> until when, oldest first."""
        self._asked = SlidingWindow()

    async def find(self, question: FindToken) -> TokenFound | None:
        """Return what the controller knows of a valid token; None also when it cannot be asked. Raises nothing."""
        task = self._open.get(question.token_sha256)
        if task is None:
            bus, now = self._bus(), self._now()
            if bus is None or not bus.connected or not self._may_ask(question.token_sha256, now):
                return None
            self._asked.add(now)
            task = asyncio.create_task(self._ask(bus, question), name="find-token")
            self._open[question.token_sha256] = task
        # Shielded: others may wait for the same answer when this caller leaves.
        return await asyncio.shield(task)

    def _may_ask(self, token: str, now: float) -> bool:
        if self._unknown.get(token, 0.0) > now:
            return False
        return len(self._open) < MAX_OPEN and self._asked.count(now) < MAX_PER_MINUTE

    async def _ask(self, bus: Bus, question: FindToken) -> TokenFound | None:
        try:
            found = await bus.request(subjects.controller_find_token(), question, TokenFound, timeout=TIMEOUT)
        except ServeryError:
            found = None
        finally:
            del self._open[question.token_sha256]
        if found is not None and found.grant is not None:
            return found
        self._remember_unknown(question.token_sha256)
        return None

    def _remember_unknown(self, token: str) -> None:
        now = self._now()
        self._unknown.pop(token, None)
        while self._unknown:
            oldest = next(iter(self._unknown))
            if len(self._unknown) < MAX_UNKNOWN and self._unknown[oldest] > now:
                break
            del self._unknown[oldest]
        self._unknown[token] = now + UNKNOWN_SECONDS
