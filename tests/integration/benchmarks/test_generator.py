"""The load generator on real sockets: nothing that goes wrong may be missing from what it reports."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psutil
from tests.benchmarks.load import generator
from tests.benchmarks.load.client import Outcome

RIGHT = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
WRONG = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno"

Handler = Callable[[asyncio.StreamWriter, int], Awaitable[None]]
"""Called with where to answer and the number of the request, over all connections, from 1."""


@asynccontextmanager
async def serving(answer: Handler) -> AsyncIterator[int]:
    """Yield the port of a server that reads requests and lets ``answer`` do the rest."""
    asked = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        try:
            while not writer.is_closing():
                await reader.readuntil(b"\r\n\r\n")
                asked += 1
                await answer(writer, asked)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def outcome(port: int, **wanted: Any) -> Outcome:
    order = {"host": "127.0.0.1", "port": port, "path": "/", "body": "", "headers": {}, "expected": "ok"}
    return Outcome(**await generator.run({**order, **wanted}))


async def test_every_request_of_an_open_loop_is_answered_and_counted_once():
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(RIGHT)

    async with serving(answer) as port:
        found = await outcome(port, connections=4, rate=200, seconds=0.5)
    assert (found.ok, found.errors) == (100, 0)
    assert len(found.latencies_ms) == len(found.done_at) == 100


async def test_a_body_that_is_not_the_expected_one_is_an_error_and_no_answer():
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(WRONG if number % 10 == 0 else RIGHT)

    async with serving(answer) as port:
        found = await outcome(port, connections=1, rate=200, seconds=0.5)
    assert (found.wrong, found.ok, found.errors) == (10, 90, 10)
    assert len(found.latencies_ms) == 90


async def test_a_request_that_is_never_answered_is_lost_and_those_behind_it_are_unsent():
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        if number <= 3:
            writer.write(RIGHT)

    async with serving(answer) as port:
        found = await outcome(port, connections=2, rate=100, seconds=0.2, patience=0.1)
    assert (found.ok, found.lost, found.unsent) == (3, 2, 15)
    assert found.ok + found.errors == 20


async def test_a_closed_loop_goes_on_over_another_connection_when_the_server_closes_one():
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        if number in (2, 4):
            writer.close()
        else:
            writer.write(RIGHT)

    async with serving(answer) as port:
        found = await outcome(port, connections=2, seconds=0.5)
    assert found.lost == 2
    assert found.ok > 4, "both connections were lost, and others took their places"


def test_a_long_report_arrives_whole_although_a_signal_interrupts_its_writing():
    length = 700_000
    code = f"from tests.benchmarks.load.generator import write_whole; write_whole(1, b'x' * {length})"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as process:
        assert process.stdout is not None
        process.stdout.read(1)  # It has begun to write, and nobody reads on: the pipe is filled.
        process.send_signal(signal.SIGSTOP)
        while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
            pass
        process.send_signal(signal.SIGCONT)
        assert len(process.stdout.read()) == length - 1
