"""Read request bodies within bounds, both of one body and of all bodies this gateway holds at a time.

Memory is promised before it is filled: a body with a Content-Length reserves it before a byte is read, a chunked one
reserves as it grows. What nobody has read yet waits in the client: the server stops reading a connection at 64 KiB.

A body that is refused is read on and thrown away, up to a limit: a client that is answered while it still uploads
may see a broken connection instead of the answer, and retries.
"""

import asyncio
from collections.abc import Mapping

from servery_common.errors import BadRequest, Unavailable
from servery_gateway.http import ClientDisconnected, Receive, declared_length, expects_continue

NO_MEMORY = "The gateway holds as many request bodies as it may. Try again in a moment."


class BodyBudget:
    """How many bytes of bodies may be held at a time, and how many are."""

    __slots__ = ("held", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0


class RequestBody:
    """The body of one request: read it or discard it, and release it when the request has ended."""

    __slots__ = ("_budget", "_headers", "_more", "_receive", "_received", "_reserved", "_touched")

    def __init__(self, receive: Receive, headers: Mapping[bytes, bytes], budget: BodyBudget) -> None:
        self._receive = receive
        self._headers = headers
        self._budget = budget
        self._reserved = 0
        self._received = 0
        self._touched = False
        self._more = True

    async def read(self, limit: int) -> bytes:
        """Return the whole body, of at most ``limit`` bytes.

        Raises BadRequest (too long), Unavailable (beyond the budget) or ClientDisconnected.
        """
        self._reserve(declared_length(self._headers) or 0, limit)
        piece = await self._next()
        self._reserve(self._received, limit)
        if not self._more:
            return piece
        pieces = [piece]
        while self._more:
            pieces.append(await self._next())
            self._reserve(self._received, limit)
        return b"".join(pieces)

    async def discard(self, limit: int, deadline: float) -> bool:
        """Throw away what is left, until ``deadline`` (on the event loop's clock) or ``limit`` bytes of the body.

        Returns whether its end was reached, so that the connection can go on. Raises ClientDisconnected.
        """
        self.release()
        if not self._touched and expects_continue(self._headers):
            return False  # Reading would ask the client to send it.
        try:
            async with asyncio.timeout_at(deadline):
                while self._more:
                    if self._received > limit:
                        return False
                    await self._next()
        except TimeoutError:
            return False
        return True

    def release(self) -> None:
        """Give the memory back. Doing it twice changes nothing."""
        self._budget.held -= self._reserved
        self._reserved = 0

    def _reserve(self, length: int, limit: int) -> None:
        if length > limit:
            raise BadRequest(
                f"The request body is longer than the limit of {limit} bytes ({limit // (1024 * 1024)} MB)."
            )
        more = length - self._reserved
        if more > 0:
            if self._budget.held + more > self._budget.limit:
                raise Unavailable(NO_MEMORY, reason="memory")
            self._budget.held += more
            self._reserved = length

    async def _next(self) -> bytes:
        self._touched = True
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        self._more = message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        self._received += len(piece)
        return piece
