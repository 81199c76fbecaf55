import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError

from servery_common.messaging.wire import MAX_LINE_BYTES, WireReader

Message = tuple[bytes, str, bytes, bytes]
HEADERS = b"NATS/1.0\r\nA: b\r\n\r\n"


class Read:
    """A reader with one subscription it has a handler for, and what came of it in order."""

    def __init__(self) -> None:
        self.all: list[Message | bytes] = []
        self.reader = WireReader({b"1": self.take}, self.all.append)

    def take(self, payload: memoryview, reply: str, headers: bytes, subject: bytes) -> None:
        self.all.append((bytes(payload), reply, headers, subject))

    def feed(self, *pieces: bytes) -> "Read":
        for piece in pieces:
            self.reader.feed(piece)
        return self


def message(
    payload: bytes, *, sid: int = 1, subject: str = "ours.a", reply: str = "", headers: bytes = b""
) -> bytes:
    words = ["HMSG" if headers else "MSG", subject, str(sid), *([reply] if reply else [])]
    words += [str(len(headers))] if headers else []
    words.append(str(len(headers) + len(payload)))
    return " ".join(words).encode() + b"\r\n" + headers + payload + b"\r\n"


def test_a_message_goes_to_the_handler_of_its_subscription_with_the_subject_it_came_on():
    assert Read().feed(message(b"hello", reply="back")).all == [(b"hello", "back", b"", b"ours.a")]
    assert Read().feed(message(b"hello", subject="ours.b")).all == [(b"hello", "", b"", b"ours.b")]


def test_headers_are_handed_over_apart_from_the_payload():
    with_reply = message(b"hello", headers=HEADERS, reply="back")
    assert Read().feed(with_reply).all == [(b"hello", "back", HEADERS, b"ours.a")]
    assert Read().feed(message(b"", headers=HEADERS)).all == [(b"", "", HEADERS, b"ours.a")]


def test_everything_else_is_passed_on_as_it_came():
    others = [b"PING\r\n", message(b"x", sid=2, headers=HEADERS), b"-ERR 'no'\r\n", b"+OK\r\n"]
    assert Read().feed(b"".join(others)).all == others


STREAM = [
    message(b"", reply="r"),
    b"PING\r\n",
    message(b"MSG ours 1 4\r\n\r\n"),
    message(b"x" * 300, headers=HEADERS, reply="r"),
    message(b"not ours", sid=2),
    b'INFO {"a": 1}\r\n',
    message(b"end"),
]


@given(st.lists(st.integers(1, 120), min_size=1))
def test_however_the_bytes_are_cut_the_same_is_read(lengths: list[int]):
    whole, pieces = b"".join(STREAM), list[bytes]()
    while whole:
        length = lengths[len(pieces) % len(lengths)]
        pieces.append(whole[:length])
        whole = whole[length:]
    assert Read().feed(*pieces).all == Read().feed(b"".join(STREAM)).all


@pytest.mark.parametrize(
    "nonsense",
    [
        b"MSG ours 1\r\n",
        b"MSG ours 1 a b c 3\r\n",
        b"MSG ours 1 -3\r\n",
        b"MSG ours 1 three\r\n",
        b"HMSG ours 1 x 10\r\n",
        b"x" * (MAX_LINE_BYTES + 1),
    ],
)
def test_what_no_server_sends_is_an_error(nonsense: bytes):
    with pytest.raises(ProtocolError):
        Read().feed(nonsense)
