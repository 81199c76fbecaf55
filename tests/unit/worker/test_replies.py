import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from nats.errors import OutboundBufferLimitError
from tests.waiting import until

from servery_common.contracts import frames
from servery_worker.replies import Replies, packed


class Connection:
    """Writes when told to, as a connection does whose other end does not read."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.unsent = 0
        self.losses = 0
        self.is_connected = True
        self.reconnect_callbacks: list[Callable[[], None]] = []

    def send(self, subject: str, parts: Sequence[bytes]) -> None:
        if not self.is_connected:
            raise OutboundBufferLimitError
        self.sent.append(b"".join(parts))
        self.unsent += 1

    def lose(self) -> None:
        self.losses += 1
        self.unsent = 0
        self.is_connected = False

    def come_back(self) -> None:
        self.is_connected = True
        for callback in self.reconnect_callbacks:
            callback()


@pytest.fixture
def connection() -> Connection:
    return Connection()


@pytest.fixture
async def replies(connection: Any) -> Replies:
    return Replies(connection)


async def test_what_follows_an_acceptance_happens_when_that_is_written_and_not_before(
    replies: Replies, connection: Connection
):
    told: list[bool] = []
    replies.accept("gateway", 7, told.append)
    await until(lambda: connection.sent == [frames.accepted([7])])
    await asyncio.sleep(0.01)
    assert told == []
    connection.unsent = 0
    await until(lambda: told == [True])


async def test_an_acceptance_lost_with_the_connection_is_known_to_be_lost(
    replies: Replies, connection: Connection
):
    told: list[bool] = []
    replies.accept("gateway", 7, told.append)
    await until(lambda: connection.sent == [frames.accepted([7])])
    connection.lose()
    await until(lambda: told == [False])


async def test_without_a_connection_an_acceptance_is_not_sent(replies: Replies, connection: Connection):
    connection.lose()
    told: list[bool] = []
    replies.accept("gateway", 7, told.append)
    await until(lambda: told == [False])
    assert connection.sent == []


async def test_what_is_held_is_sent_when_the_connection_is_back(replies: Replies, connection: Connection):
    connection.lose()
    replies.send_or_hold("gateway", b"refused")
    await asyncio.sleep(0.01)
    assert connection.sent == []
    connection.come_back()
    await until(lambda: connection.sent == [b"refused"])


async def test_an_acceptance_that_may_wait_leaves_with_the_next_message(
    replies: Replies, connection: Connection
):
    replies.accept("gateway", 7, lambda sent: None, soon=False)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert connection.sent == []
    replies.send("gateway", frames.encode(frames.REFUSE, 1))
    await until(lambda: bool(connection.sent))
    [message] = connection.sent
    assert [record.kind for record in frames.scan(message)] == [frames.ACCEPT, frames.REFUSE]


async def test_an_acceptance_without_company_leaves_by_itself(replies: Replies, connection: Connection):
    replies.accept("gateway", 7, lambda sent: None, soon=False)
    await until(lambda: connection.sent == [frames.accepted([7])])


async def test_acceptances_of_one_turn_share_a_record_before_all_others(
    replies: Replies, connection: Connection
):
    replies.send("gateway", frames.encode(frames.REFUSE, 1))
    for number in (7, 8):
        replies.accept("gateway", number, lambda sent: None)
    await until(lambda: bool(connection.sent))
    [message] = connection.sent
    accepted, refused = frames.scan(message)
    assert frames.accepted_ids(accepted.body) == (7, 8)
    assert refused.kind == frames.REFUSE


async def test_while_it_is_held_nothing_leaves_and_then_all_of_it_in_order(
    replies: Replies, connection: Connection
):
    told: list[bool] = []
    with replies.hold():
        replies.send("gateway", b"first")
        replies.send_or_hold("gateway", b"second")
        replies.accept("gateway", 7, told.append, soon=False)
        await asyncio.sleep(0.02)
        assert connection.sent == []
    await until(lambda: bool(connection.sent))
    assert connection.sent == [frames.accepted([7]) + b"firstsecond"]
    connection.unsent = 0
    await until(lambda: told == [True])


async def test_what_waits_for_a_connection_leaves_on_the_one_that_took_its_place(
    replies: Replies, connection: Connection
):
    connection.lose()
    replies.send_or_hold("gateway", b"refused")
    with replies.hold():
        connection.is_connected = True
    await until(lambda: connection.sent == [b"refused"])


def joined(records: list[tuple[bytes, ...]], limit: int) -> list[bytes]:
    return [b"".join(message) for message in packed(records, limit)]


def test_records_of_one_tick_leave_together():
    assert joined([(b"a",), (b"b",), (b"c",)], 10) == [b"abc"]


def test_a_message_stays_below_the_limit_and_keeps_the_order():
    assert joined([(b"aaa",), (b"bbb",), (b"c",)], 4) == [b"aaa", b"bbbc"]


def test_a_record_in_parts_is_never_cut():
    assert joined([(b"aaa",), (b"b", b"bb"), (b"c",)], 4) == [b"aaa", b"bbbc"]


def test_a_record_longer_than_the_limit_travels_alone():
    assert joined([(b"a",), (b"bbbbbb",), (b"c",)], 4) == [b"a", b"bbbbbb", b"c"]


def test_nothing_to_send_is_no_message():
    assert joined([], 4) == []
