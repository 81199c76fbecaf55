import asyncio

import pytest

from servery_common.errors import Unavailable
from servery_gateway.answer_stream import ACKNOWLEDGE_BYTES, HANDED_OUT_BYTES, AnswerStream


def stream() -> tuple[AnswerStream, list[int]]:
    reports: list[int] = []
    return AnswerStream(200, "text/event-stream", reports.append), reports


async def test_what_has_come_is_handed_out_together_and_none_is_the_end() -> None:
    one, _ = stream()
    one.put(b"a")
    one.put(b"b")
    assert await one.next() == b"ab"
    one.put(b"c")
    one.end()
    assert [await one.next(), await one.next()] == [b"c", None]


async def test_it_waits_for_what_has_not_come() -> None:
    one, _ = stream()
    waiting = asyncio.create_task(one.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    one.put(b"a")
    assert await waiting == b"a"


async def test_a_failure_comes_after_what_came_before_it() -> None:
    one, _ = stream()
    one.put(b"a")
    one.end(Unavailable("gone"))
    one.put(b"too late")
    one.end()
    assert await one.next() == b"a"
    with pytest.raises(Unavailable):
        await one.next()


async def test_bytes_are_reported_when_the_client_took_them_and_when_they_are_many() -> None:
    one, reports = stream()
    pieces = ACKNOWLEDGE_BYTES // HANDED_OUT_BYTES
    for _ in range(pieces + 2):
        one.put(b"x" * HANDED_OUT_BYTES)
        await one.next()
    assert reports == [0] * (pieces - 1) + [ACKNOWLEDGE_BYTES, 0]


async def test_much_is_handed_out_in_pieces_each_of_which_shows_that_the_client_reads() -> None:
    one, reports = stream()
    one.put(b"x" * (2 * HANDED_OUT_BYTES + 1))
    assert [len(await one.next() or b"") for _ in range(3)] == [HANDED_OUT_BYTES, HANDED_OUT_BYTES, 1]
    assert reports == [0, 0]


async def test_an_answer_that_ended_reports_nothing() -> None:
    one, reports = stream()
    one.put(b"x" * ACKNOWLEDGE_BYTES)
    one.end()
    while await one.next() is not None:
        pass
    assert reports == []
