"""Time limits of many requests for the price of few timers.

Nearly every limit is taken back before it is reached: a request is accepted and answered. A timer of the event loop
costs a handle and a place in a heap each; here a limit is a member of a set, one set for each ``granularity`` seconds,
and each set has one timer. A limit is noticed up to ``granularity`` late, never early.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class TimerWheel(Generic[T]):
    """Calls ``expired`` with each item whose time has come."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, granularity: float, expired: Callable[[T], None]
    ) -> None:
        self._loop = loop
        self._granularity = granularity
        self._expired = expired
        self._slots: dict[int, set[T]] = {}

    def add(self, item: T, when: float) -> set[T]:
        """Return the slot the item is in until ``when`` (on the loop's clock): discard it there to take it back."""
        number = int(when / self._granularity) + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = set()
            self._loop.call_at(number * self._granularity, self._fire, number)
        slot.add(item)
        return slot

    def _fire(self, number: int) -> None:
        slot = self._slots.pop(number)
        while slot:
            self._expired(slot.pop())
