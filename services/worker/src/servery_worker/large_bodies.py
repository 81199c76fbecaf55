"""How many long bodies a replica takes in at a time. Pure.

All requests a replica has accepted may have a long body, and it can work on a few only. Each may send what fits into
its window; of those that go on, the oldest do first. So the worker holds a bounded part of the others, and they wait
in the gateway, which holds them anyway, without having to be refused and sent once more.
"""

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class LargeBodies(Generic[K]):
    """Which of the long bodies may go on arriving: at most ``limit``, first come first served, until ``remove``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._going_on: set[K] = set()
        self._held_back: deque[tuple[K, int]] = deque()

    def credit(self, key: K, count: int) -> int:
        """``count`` bytes were taken in: return how many of them may be acknowledged now."""
        if key in self._going_on or len(self._going_on) < self._limit:
            self._going_on.add(key)
            return count
        self._held_back.append((key, count))
        return 0

    def complete(self, key: K, count: int) -> int:
        """The last ``count`` bytes were taken in: return how many may be acknowledged, with those held back before."""
        held = sum(entry[1] for entry in self._held_back if entry[0] == key)
        if held:
            self._held_back = deque(entry for entry in self._held_back if entry[0] != key)
        return held + count

    def remove(self, key: K) -> list[tuple[K, int]]:
        """The request has ended: return what may be acknowledged to others now."""
        if key not in self._going_on:
            if self._held_back:
                self._held_back = deque(entry for entry in self._held_back if entry[0] != key)
            return []
        self._going_on.discard(key)
        freed: list[tuple[K, int]] = []
        while self._held_back:
            first = self._held_back[0][0]
            if first not in self._going_on and len(self._going_on) >= self._limit:
                break
            self._going_on.add(first)
            freed += [entry for entry in self._held_back if entry[0] == first]
            self._held_back = deque(entry for entry in self._held_back if entry[0] != first)
        return freed
