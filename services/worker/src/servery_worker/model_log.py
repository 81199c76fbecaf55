"""What a model prints: the last lines of it, and a pipe that cannot flood the worker."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

KEPT_LINES = 1000
LONGEST_LINE = 8 * 1024
"""Bytes; the rest of a longer line is dropped."""
PAUSE_SECONDS = 0.005
"""Pause after each full read. A model that prints without end waits in its own print and not the agent with it: a read
brings at most 256 KiB (``process.PIPE_BYTES``), so this lets about 40 MB/s through, at a tenth of a processor. A
gigabyte is printed well within the usual deadline."""
FULL_READ_BYTES = 64 * 1024


class ModelLog:
    """The newest lines, over all runners of a replica."""

    def __init__(self, on_line: Callable[[str], None] | None = None) -> None:
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._on_line = on_line

    def append(self, line: str) -> None:
        """Keep one line."""
        self._lines.append(line)
        if self._on_line is not None:
            self._on_line(line)

    def tail(self, count: int = KEPT_LINES) -> list[str]:
        """The last ``count`` lines, newest last."""
        return list(self._lines)[-count:] if count > 0 else []


class LogPipe(asyncio.Protocol):
    """Reads one process's output into a log."""

    def __init__(self, log: ModelLog) -> None:
        self._log = log
        self._rest = b""
        self._transport: asyncio.ReadTransport | None = None
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked: the classes of uvloop's transports are not asyncio's.
        self._transport = cast(asyncio.ReadTransport, transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        # More lines than are kept cannot matter: the oldest would be pushed out by the newest.
        for line in lines[-KEPT_LINES:]:
            self._log.append(_text(line))
        self._rest = self._rest[:LONGEST_LINE]
        if len(data) >= FULL_READ_BYTES and self._transport is not None:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._resume)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._rest:
            self._log.append(_text(self._rest))
        self._transport = None
        self.closed.set()

    def close(self) -> None:
        """Stop reading; what was not read is lost."""
        if self._transport is not None:
            self._transport.close()

    def _resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


def _text(line: bytes) -> str:
    return line[:LONGEST_LINE].decode(errors="replace").rstrip("\r")
