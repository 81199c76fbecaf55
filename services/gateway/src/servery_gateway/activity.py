"""Who of very many is worth a report: those something happened to, and of the others a few each time.

What is reported of who was active follows what was done. What is reported of the idle ones is spread: each has its turn
once in ``rounds`` reports, so that who begins to listen knows all of them some time later, and a report that was lost
is made up for.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Activity(Generic[K]):
    """Keeps who there is and who was active. All but ``due`` take the same time for however many."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._turn: OrderedDict[K, None] = OrderedDict()
        """All of them; the first is the one whose turn was longest ago."""
        self.active: set[K] = set()

    def __contains__(self, key: K) -> bool:
        return key in self._turn

    def add(self, key: K) -> None:
        """There is one more. It is not known to anybody: it counts as active."""
        self._turn[key] = None
        self.active.add(key)

    def remove(self, key: K) -> None:
        """It is gone."""
        self._turn.pop(key, None)
        self.active.discard(key)

    def touch(self, key: K) -> None:
        """Something happened to it."""
        if key in self._turn:
            self.active.add(key)

    def rest(self, key: K) -> None:
        """It was reported as idle: it need not be reported again before its turn."""
        self.active.discard(key)

    def due(self) -> list[K]:
        """Return whom to report now. Whoever was active stays so until ``rest``."""
        due = list(self.active)
        for _ in range(-(-len(self._turn) // self._rounds)):
            key = next(iter(self._turn))
            self._turn.move_to_end(key)
            if key not in self.active:
                due.append(key)
        return due
