"""Ask a component whether it is ready, when it does not say so by itself.

A probe is asked again and again while the component starts; it answers quickly and never raises
because the component is not there yet.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress

from servery_local.ports import LOOPBACK, listens

Probe = Callable[[int], Awaitable[bool]]
"""Gets the pid of the component's process, answers whether it is ready."""

PROBE_TIMEOUT = 2.0


def http_ok(port: int, path: str) -> Probe:
    """Return a probe that is satisfied by a 200 from `path` of the component's own process.

    Two stacks that start at once may have chosen the same port: the other one's server is not ours. Speaks HTTP
    itself: a client library would take longer to import than most components to start.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: {LOOPBACK}:{port}\r\nConnection: close\r\n\r\n"

    async def probe(pid: int) -> bool:
        line = await _first_line(port, request.encode())
        return line.split(b" ")[1:2] == [b"200"] and listens(pid, port)

    return probe


def nats_with_jetstream(port: int) -> Probe:
    """Return a probe that is satisfied by the greeting of a NATS server with JetStream."""

    async def probe(_pid: int) -> bool:
        verb, _, info = (await _first_line(port)).partition(b" ")
        try:
            return verb == b"INFO" and json.loads(info).get("jetstream") is True
        except ValueError:  # another program's greeting, or half of one
            return False

    return probe


async def _first_line(port: int, request: bytes = b"") -> bytes:
    """Return the first line a server on `port` answers; empty if it does not."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(PROBE_TIMEOUT):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(request)
                return await reader.readline()
            finally:
                writer.close()
    return b""
