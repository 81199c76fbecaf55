"""Long bodies take turns being read, so that what is short is not behind all of them in one turn of the event loop."""

import asyncio
from collections import deque

READS_A_TURN = 2
"""Reads of up to 256 KB, each of which takes a fraction of a millisecond to take in and pass on."""


class ReadingTurns:
    """Those who want to read on wait here; in each turn of the event loop the first few may."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._let_in = False

    async def wait(self) -> None:
        """Return when it is the caller's turn to read one piece."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._let_in_soon()
        await future

    def _let_in_soon(self) -> None:
        if not self._let_in:
            self._let_in = True
            asyncio.get_running_loop().call_soon(self._let_some_in)

    def _let_some_in(self) -> None:
        self._let_in = False
        free = READS_A_TURN
        while self._waiting and free:
            future = self._waiting.popleft()
            if not future.done():  # Its reader did not leave meanwhile.
                future.set_result(None)
                free -= 1
        if self._waiting:
            self._let_in_soon()
