"""Read request bodies within bounds, both of one body and of all bodies this gateway holds at a time.

Memory is promised before it is filled: a body with a Content-Length reserves it before a byte is read, a chunked one
reserves as it grows. What nobody has read yet waits in the client: the server stops reading a connection at 64 KiB.

A body that is refused is read on and thrown away, up to a limit: a client that is answered while it still uploads
may see a broken connection instead of the answer, and retries.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import NamedTuple

from servery_common.errors import BadRequest, Unavailable
from servery_gateway.http import ClientDisconnected, Receive, declared_length, expects_continue
from servery_gateway.long_body import PIECE_BYTES, LongBody
from servery_gateway.reading_turns import ReadingTurns

COMPANY_SECONDS = 60.0
UNHINDERED_BYTES = 64 * 1024
"""What is longer waits for its turn before each piece that is read of it."""
NO_MEMORY = "The gateway holds as many request bodies as it may. Try again in a moment."


class Owner(NamedTuple):
    """On whose behalf a body is held."""

    workspace_id: str
    endpoint_id: str


class _Holder:
    """A workspace, or an endpoint."""

    __slots__ = ("held", "seen")

    def __init__(self) -> None:
        self.held = 0
        self.seen = 0.0
        """When a body came last."""


class BodyBudget:
    """How many bytes of bodies may be held at a time, and how many are. ``clock`` returns seconds.

    One workspace, and one endpoint, may hold all of it as long as it is alone, and half of it while another one has
    come within the last ``COMPANY_SECONDS``: whatever somebody uploads, the others find room.
    """

    __slots__ = ("_clock", "_endpoints", "_workspaces", "held", "limit", "turns")

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.held = 0
        self.turns = ReadingTurns()
        """Whose turn it is to be read on."""
        self._clock = clock
        self._workspaces: defaultdict[str, _Holder] = defaultdict(_Holder)
        self._endpoints: defaultdict[str, _Holder] = defaultdict(_Holder)

    def reserve(self, length: int, owner: Owner | None) -> None:
        """Promise so many bytes more. Raises Unavailable. Without an owner only the whole is looked at."""
        refused = self.held + length > self.limit
        if owner is None:
            if refused:
                raise Unavailable(NO_MEMORY, reason="memory")
            self.held += length
            return
        workspace, endpoint = self._workspaces[owner.workspace_id], self._endpoints[owner.endpoint_id]
        workspace.seen = endpoint.seen = self._clock()
        half = self.limit // 2
        if (
            refused
            or (workspace.held + length > half and self._in_company(self._workspaces, workspace))
            or (endpoint.held + length > half and self._in_company(self._endpoints, endpoint))
        ):
            raise Unavailable(NO_MEMORY, reason="memory")
        self.held += length
        workspace.held += length
        endpoint.held += length

    def give_back(self, length: int, owner: Owner | None) -> None:
        """So many bytes are held no longer."""
        self.held -= length
        if owner is not None:
            self._workspaces[owner.workspace_id].held -= length
            self._endpoints[owner.endpoint_id].held -= length

    def forget_idle(self) -> None:
        """Forget who has not come for a while; to be called now and then."""
        oldest = self._clock() - COMPANY_SECONDS
        for holders in (self._workspaces, self._endpoints):
            for key in [key for key, one in holders.items() if one.seen < oldest and not one.held]:
                del holders[key]

    def _in_company(self, holders: Mapping[str, _Holder], holder: _Holder) -> bool:
        """Whether another one has come lately."""
        oldest = self._clock() - COMPANY_SECONDS
        return any(one is not holder and one.seen >= oldest for one in holders.values())


class RequestBody:
    """The body of one request: read it or discard it, and release it when the request has ended."""

    __slots__ = ("_budget", "_headers", "_more", "_owner", "_receive", "_received", "_reserved", "_touched")

    def __init__(self, receive: Receive, headers: Mapping[bytes, bytes], budget: BodyBudget) -> None:
        self._receive = receive
        self._headers = headers
        self._budget = budget
        self._owner: Owner | None = None
        self._reserved = 0
        self._received = 0
        self._touched = False
        self._more = True

    async def read(self, limit: int, owner: Owner | None = None) -> bytes | LongBody:
        """Return the whole body, of at most ``limit`` bytes, which is held on behalf of ``owner``.

        Raises BadRequest (too long), Unavailable (beyond the budget) or ClientDisconnected.
        """
        self._owner = owner
        self._reserve(declared_length(self._headers) or 0, limit)
        piece = await self._next()
        self._reserve(self._received, limit)
        if not self._more:
            return piece
        whole = LongBody()
        whole.append(piece)
        while self._more:
            whole.append(await self._next())
            self._reserve(self._received, limit)
        return whole if len(whole) > PIECE_BYTES else bytes(whole)

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
        if self._reserved:
            self._budget.give_back(self._reserved, self._owner)
            self._reserved = 0

    def _reserve(self, length: int, limit: int) -> None:
        require_length(length, limit)
        more = length - self._reserved
        if more > 0:
            self._budget.reserve(more, self._owner)
            self._reserved = length

    async def _next(self) -> bytes:
        self._touched = True
        if self._received > UNHINDERED_BYTES:
            await self._budget.turns.wait()
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        self._more = message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        self._received += len(piece)
        return piece


def require_length(length: int, limit: int) -> None:
    """Raise BadRequest for a body that is longer than ``limit`` bytes."""
    if length > limit:
        raise BadRequest(
            f"The request body is longer than the limit of {limit} bytes ({limit // (1024 * 1024)} MB)."
        )
