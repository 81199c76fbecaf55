import asyncio
from typing import Any

from servery_worker.replies import Replies, packed


class Connection:
    """Writes, as nats-py does, in a task of its own."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    async def publish(self, subject: str, message: bytes) -> None:
        asyncio.get_running_loop().call_soon(self.written.append, message)


async def test_what_follows_an_acceptance_happens_when_that_is_written_and_not_before():
    connection: Any = Connection()
    replies = Replies(connection)
    running = asyncio.create_task(replies.run())
    written: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()
    replies.send("gateway", b"accepted")
    replies.after_sent(lambda: written.set_result(list(connection.written)))
    assert await asyncio.wait_for(written, 10) == [b"accepted"]
    running.cancel()


def test_records_of_one_tick_leave_together():
    assert packed([b"a", b"b", b"c"], 10) == [b"abc"]


def test_a_message_stays_below_the_limit_and_keeps_the_order():
    assert packed([b"aaa", b"bbb", b"c"], 4) == [b"aaa", b"bbbc"]


def test_a_record_longer_than_the_limit_travels_alone():
    assert packed([b"a", b"bbbbbb", b"c"], 4) == [b"a", b"bbbbbb", b"c"]


def test_nothing_to_send_is_no_message():
    assert packed([], 4) == []
