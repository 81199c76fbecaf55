import asyncio
from pathlib import Path
from typing import cast

import pytest

from servery_common.contracts import frames
from servery_runner.begun import BegunTable
from servery_worker.runner import WRITTEN_BYTES, Runner


@pytest.fixture
async def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path, BegunTable(tmp_path, 1), answer_bytes=1000)


NONSENSE = {
    "no record": b"\xff" * frames.HEADER.size,
    "a result": frames.encode(frames.RESULT, 1, {}),
    "ready twice": frames.encode(frames.READY, 1, {}) * 2,
}


@pytest.mark.parametrize("data", NONSENSE.values(), ids=NONSENSE)
async def test_a_runner_that_speaks_nonsense_is_ended(runner: Runner, data: bytes) -> None:
    def handle(record: frames.RawRecord) -> None:
        raise OverflowError("cannot convert float infinity to integer")

    runner.on_result = handle
    runner.data_received(data)
    assert runner.dead.is_set()


class Socket:
    """Takes what is written; full when told so."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.calls = 0

    def write(self, data: bytes) -> None:
        self.writelines([data])

    def writelines(self, parts: list[bytes]) -> None:
        self.written += b"".join(parts)
        self.calls += 1


PIECE_BYTES = frames.CHUNK_BYTES - 2048
"""As a gateway sends them."""
BODY = bytes(range(256)) * (4 * WRITTEN_BYTES // 256)
PIECES = [memoryview(BODY)[at : at + PIECE_BYTES] for at in range(0, len(BODY), PIECE_BYTES)]


def hand_over(runner: Runner, socket: Socket) -> bytes:
    """Returns what the runner has to read for it."""
    runner.connection_made(cast(asyncio.Transport, socket))
    runner.request(1, b"order", PIECES)
    runner.cancel(1)
    return frames.pack(frames.REQUEST, 1, b"order", BODY) + frames.encode(frames.CANCEL, 1)


async def test_a_long_body_is_handed_over_in_several_turns(runner: Runner) -> None:
    socket = Socket()
    expected = hand_over(runner, socket)
    longest = 0
    while len(socket.written) < len(expected):
        before = len(socket.written)
        await asyncio.sleep(0)
        longest = max(longest, len(socket.written) - before)
    assert bytes(socket.written) == expected
    assert longest <= WRITTEN_BYTES


async def test_nothing_more_is_written_to_a_runner_that_has_to_read_first(runner: Runner) -> None:
    socket = Socket()
    expected = hand_over(runner, socket)
    await asyncio.sleep(0)
    runner.pause_writing()
    written = len(socket.written)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(socket.written) == written < len(expected)
    runner.resume_writing()
    for _ in range(10):
        await asyncio.sleep(0)
    assert bytes(socket.written) == expected
