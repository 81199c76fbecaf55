"""Writes of one turn of the event loop, sent with one call."""

import asyncio
from collections.abc import Callable
from typing import Any


class JoiningTransport:
    """A transport that sends what was written in one turn of the event loop with one call.

    uvicorn hands head and body of an answer over one after the other, and uvloop sends each as it comes: two system
    calls, two segments and, for the client, two reads, which for a short answer is half of what it costs to send it.
    """

    __slots__ = ("_held", "_loop", "_on_close", "_transport")

    def __init__(self, transport: asyncio.Transport, on_close: Callable[[], None]) -> None:
        self._transport = transport
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send soon."""
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held.append(data)

    def write_now(self, data: bytes) -> None:
        """Send, behind what is held."""
        if self._held:
            self.flush()
        self._transport.write(data)

    def flush(self) -> None:
        """Send now what is held."""
        held, self._held = self._held, []
        if held and not self._transport.is_closing():
            self._transport.writelines(held)

    def close(self) -> None:
        """Send what is held, then close."""
        self.flush()
        self._transport.close()
        self._on_close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
