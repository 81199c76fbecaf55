"""uvicorn's HTTP protocol, writing each answer at once.

uvicorn hands head and body of an answer to the transport one after the other, and uvloop sends each as it comes: two
system calls, two segments and, for the client, two reads, which for a short answer is half of what it costs to send it.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class JoiningTransport:
    """A transport that sends what was written in one turn of the event loop with one call."""

    __slots__ = ("_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send soon."""
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held.append(data)

    def flush(self) -> None:
        """Send now what is held."""
        held, self._held = self._held, []
        if held and not self._transport.is_closing():
            self._transport.writelines(held)

    def close(self) -> None:
        """Send what is held, then close."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class GatewayProtocol(HttpToolsProtocol):
    """One connection of a client."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Implement asyncio.Protocol."""
        # Not checked: the classes of uvloop's transports are not asyncio's.
        joining = JoiningTransport(cast(asyncio.Transport, transport))
        super().connection_made(cast(asyncio.Transport, joining))


def body_has_arrived(receive: object) -> bool:
    """Whether ``receive``, of a request to this server, has the whole body: it would not have to wait.

    Looks at uvicorn's own state; False where that is not known.
    """
    return getattr(getattr(receive, "__self__", None), "more_body", True) is False
