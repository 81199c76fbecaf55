"""Count events over a sliding minute, in constant memory. Pure: time is an argument.

The sliding window is kept as one counter per second, as Figma's rate limiter does ("An alternative approach to rate
limiting", 2017), instead of the time of each event. Counting whole seconds errs to one side only: an event counts for
``WINDOW`` seconds and at most one more, so never more than the limit pass in any window of ``WINDOW``
seconds. A token bucket would let twice the limit through: a full bucket and what flows in meanwhile.
"""

from collections import deque
from math import ceil

WINDOW = 60
"""Seconds."""


class SlidingWindow:
    """How many events there were in the last minute."""

    __slots__ = ("_count", "_seconds")

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int]] = deque()
        """(second, events in it), oldest first; seconds without an event are absent."""
        self._count = 0

    def count(self, now: float) -> int:
        """Return how many events still count at ``now`` (seconds; must not go back)."""
        while self._seconds and self._seconds[0][0] < int(now) - WINDOW:
            self._count -= self._seconds.popleft()[1]
        return self._count

    def add(self, now: float, events: int = 1) -> None:
        """One more event, or several."""
        second = int(now)
        if self._seconds and self._seconds[-1][0] == second:
            self._seconds[-1] = second, self._seconds[-1][1] + events
        else:
            self._seconds.append((second, events))
        self._count += events

    def seconds_until_below(self, limit: int, now: float) -> int:
        """Return in how many whole seconds fewer than ``limit`` events count, 0 if they do now.

        A limit of 0 never has room: a whole window is returned.
        """
        excess = self.count(now) - limit + 1
        if excess <= 0:
            return 0
        for second, events in self._seconds:
            excess -= events
            if excess <= 0:
                return ceil(second + WINDOW + 1 - now)
        return WINDOW
