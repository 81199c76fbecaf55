"""How late the event loop is: the one queue of a gateway that all requests share, and that no bound is put on.

A loop that is late for a moment had something long to do. One that stays late gets more to do than it can, and each
request it begins makes all others later. Then it does the least it can do with a new one, which is to refuse it on its
headers, until it has caught up.
"""

import asyncio
from collections import deque

import structlog
from prometheus_client import Histogram

INTERVAL = 0.05
"""Seconds between measurements."""
IN_A_ROW = 3
"""Measurements that have to be too long: together a quarter of a second or more."""

log = structlog.get_logger(__name__)
_lag = Histogram(
    "servery_gateway_loop_lag_seconds",
    "How late the event loop was, measured twenty times a second.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)


class LoopLag:
    """Pure, but for ``run``. ``limit`` is in seconds."""

    def __init__(self, limit: float = 0.1) -> None:
        self._limit = limit
        self.too_long = False
        """Whether new requests should be refused."""
        self._longest = 0.0
        self._last: deque[float] = deque(maxlen=IN_A_ROW)

    def note(self, seconds: float) -> None:
        """The loop did something so much later than it should."""
        self._longest = max(self._longest, seconds)
        _lag.observe(seconds)
        self._last.append(seconds)
        before = self.too_long
        self.too_long = len(self._last) == IN_A_ROW and min(self._last) > self._limit
        if self.too_long and not before:
            log.warning("gateway_overloaded", loop_lag_seconds=round(seconds, 3))

    def take(self) -> float:
        """Return the longest lag since the last call, in seconds."""
        longest, self._longest = self._longest, 0.0
        return longest

    async def run(self) -> None:
        """Measure for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + INTERVAL
            await asyncio.sleep(INTERVAL)
            self.note(loop.time() - due)
