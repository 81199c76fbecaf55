import pytest

from servery_common.contracts.frames import CHUNK_BYTES, WINDOW_BYTES, FrameError
from servery_worker.bodies import LARGEST_BODY_BYTES, Incoming, Outgoing


def test_pieces_make_the_body_in_order():
    incoming = Incoming(6, b"ab")
    incoming.add(b"cd")
    assert not incoming.complete
    incoming.add(b"ef")
    assert incoming.complete
    assert b"".join(incoming.pieces) == b"abcdef"


def test_an_empty_body_is_complete_at_once():
    assert Incoming(0, b"").complete


def test_more_than_was_announced_is_an_error():
    incoming = Incoming(3, b"ab")
    with pytest.raises(FrameError):
        incoming.add(b"cd")


@pytest.mark.parametrize("total", [-1, LARGEST_BODY_BYTES + 1])
def test_an_impossible_length_is_an_error(total: int):
    with pytest.raises(FrameError):
        Incoming(total, b"")


def test_no_more_than_the_window_is_sent_unacknowledged():
    body = bytes(WINDOW_BYTES + 2 * CHUNK_BYTES + 1)
    outgoing = Outgoing(body)
    sent = outgoing.pieces()
    assert sum(map(len, sent)) == WINDOW_BYTES
    assert outgoing.pieces() == []
    outgoing.acknowledge(CHUNK_BYTES)
    assert [len(piece) for piece in outgoing.pieces()] == [CHUNK_BYTES]
    assert not outgoing.complete


def test_all_pieces_together_are_the_body():
    body = bytes(range(256)) * 8192
    outgoing = Outgoing(body)
    sent = b""
    while not outgoing.complete:
        piece = b"".join(outgoing.pieces())
        assert piece
        sent += piece
        outgoing.acknowledge(len(piece))
    assert sent == body


def test_acknowledging_more_than_was_sent_opens_the_window_no_further():
    outgoing = Outgoing(bytes(3 * WINDOW_BYTES))
    outgoing.pieces()
    outgoing.acknowledge(10**9)
    assert sum(map(len, outgoing.pieces())) == WINDOW_BYTES
