"""A stream that always has more is read with turns for others in between."""

import asyncio
import socket

import uvloop

from servery_common.fair_reading import LONG_READ_BYTES, let_others_read

SENT_BYTES = 10 * 1024 * 1024
"""As much of it as the system lets a socket hold."""


class Greedy(asyncio.Protocol):
    """Notes how many turns of the event loop there were when it was read."""

    def __init__(self, *, fair: bool) -> None:
        self.fair = fair
        self.turns = 0
        self.read_in: list[int] = []
        self.received = 0
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self.read_in.append(self.turns)
        if self.fair:
            let_others_read(self.transport, len(data))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


async def read_all(*, fair: bool) -> Greedy:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT_BYTES)
    protocol = Greedy(fair=fair)

    def turn() -> None:
        protocol.turns += 1
        loop.call_soon(turn)

    # All of it is there before the first read.
    ours.setblocking(False)
    sent = 0
    while True:
        try:
            sent += ours.send(bytes(LONG_READ_BYTES))
        except BlockingIOError:
            break
    ours.close()
    await loop.create_connection(lambda: protocol, sock=theirs)
    turn()
    await protocol.closed.wait()
    assert protocol.received == sent
    return protocol


def test_others_have_turns_between_long_reads() -> None:
    fair = uvloop.run(read_all(fair=True))
    assert len(set(fair.read_in)) == len(fair.read_in)


def test_without_it_one_turn_takes_many_reads() -> None:
    """What it is for: if libuv changes this, the help is not needed any more."""
    greedy = uvloop.run(read_all(fair=False))
    assert len(set(greedy.read_in)) < len(greedy.read_in)
