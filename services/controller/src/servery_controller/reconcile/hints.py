"""Which endpoints deserve a look now. A hint may be lost or repeated; polling finds what hints miss."""

import asyncio
from collections.abc import Iterable


class Hints:
    """A set of endpoint ids with a wake-up."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._woken = asyncio.Event()

    def add(self, endpoint_id: str) -> None:
        """Look at this endpoint soon."""
        self._ids.add(endpoint_id)
        self._woken.set()

    def wake(self) -> None:
        """Look again at what is there."""
        self._woken.set()

    def peek(self) -> list[str]:
        """The hinted ids. They stay until discarded: an endpoint that is being looked at now is looked at again."""
        return list(self._ids)

    def within(self, endpoint_ids: Iterable[str]) -> bool:
        """Whether all hinted endpoints are among these."""
        return self._ids.issubset(endpoint_ids)

    def discard(self, endpoint_id: str) -> None:
        """The endpoint is about to be looked at."""
        self._ids.discard(endpoint_id)

    def retain(self, endpoint_ids: Iterable[str]) -> None:
        """Drop hints at endpoints that are gone."""
        self._ids.intersection_update(endpoint_ids)

    async def wait(self, seconds: float) -> None:
        """Return at the next wake-up, or after ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return
        finally:
            # Cleared after waking: a hint that comes while the caller works wakes the next wait at once.
            self._woken.clear()
