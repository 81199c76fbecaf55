"""Notice that a client left while its answer is being worked on.

Watching one takes a task, which costs as much as a fast prediction: it is started only for requests that are not
answered within a moment. One timer looks after all of them.
"""

import asyncio
from collections.abc import Callable

from servery_gateway.http import Receive

GRACE = 0.05
"""Seconds, and at most twice that, before a client is watched."""


class DisconnectWatch:
    """One client."""

    __slots__ = ("_callback", "_receive", "_task", "_watches")

    def __init__(self, watches: "DisconnectWatches", receive: Receive, callback: Callable[[], None]) -> None:
        self._watches = watches
        self._receive = receive
        self._callback = callback
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Watch from now on."""
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="disconnect-watch")

    def stop(self) -> None:
        """The answer is ready: leave the client alone."""
        self._callback = _nothing
        if self._task is not None:
            self._task.cancel()
            self._task = None
        else:
            self._watches.forget(self)

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._callback()


class DisconnectWatches:
    """The clients whose answers are being worked on."""

    def __init__(self) -> None:
        self._fresh: set[DisconnectWatch] = set()
        self._seen: set[DisconnectWatch] = set()
        self._looking = False

    def begin(self, receive: Receive, callback: Callable[[], None]) -> DisconnectWatch:
        """Call back should this client leave before the watch is stopped."""
        watch = DisconnectWatch(self, receive, callback)
        self._fresh.add(watch)
        if not self._looking:
            self._looking = True
            self._look_later()
        return watch

    def forget(self, watch: DisconnectWatch) -> None:
        """Its answer came in time. Holding on to it would keep the whole request from being freed at once."""
        self._fresh.discard(watch)
        self._seen.discard(watch)

    def _look(self) -> None:
        for watch in self._seen:
            watch.start()
        self._seen, self._fresh = self._fresh, set()
        self._looking = bool(self._seen)
        if self._looking:
            self._look_later()

    def _look_later(self) -> None:
        asyncio.get_running_loop().call_later(GRACE, self._look)


def _nothing() -> None:
    pass
