"""Which served entities are worth a decision in this tick. Pure: the time is an argument.

Those that had something to do lately, those that are not yet where they should be, and those whose time has come: of
ten thousand idle endpoints a tick sees none.
"""

import heapq
import math


class Agenda:
    """Served entities by id: some are looked at in every tick, others at a given time, most not at all."""

    def __init__(self) -> None:
        self._busy: set[str] = set()
        self._due_at: dict[str, float] = {}
        self._queue: list[tuple[float, str]] = []
        """A heap; each one is in it when it is due or earlier."""
        self._queued_at: dict[str, float] = {}
        """The earliest time each one is in the heap for."""

    def look(self, served_entity_id: str) -> None:
        """Look at it in every tick from now on."""
        self._busy.add(served_entity_id)

    def rest(self, served_entity_id: str, until: float | None) -> None:
        """Look at it no more, or not before this time."""
        self._busy.discard(served_entity_id)
        if until is None:
            self._due_at.pop(served_entity_id, None)
            return
        self._due_at[served_entity_id] = until
        self._enqueue(served_entity_id, until)

    def drop(self, served_entity_id: str) -> None:
        """It is gone."""
        self._busy.discard(served_entity_id)
        self._due_at.pop(served_entity_id, None)

    def take(self, now: float) -> list[str]:
        """Return those to look at now."""
        while self._queue and self._queue[0][0] <= now:
            queued_at, served_entity_id = heapq.heappop(self._queue)
            if self._queued_at.get(served_entity_id) == queued_at:
                del self._queued_at[served_entity_id]
            due_at = self._due_at.get(served_entity_id)
            if due_at is None:
                continue
            if due_at <= now:
                del self._due_at[served_entity_id]
                self._busy.add(served_entity_id)
            else:
                self._enqueue(served_entity_id, due_at)
        return list(self._busy)

    def _enqueue(self, served_entity_id: str, until: float) -> None:
        if until < self._queued_at.get(served_entity_id, math.inf):
            self._queued_at[served_entity_id] = until
            heapq.heappush(self._queue, (until, served_entity_id))
