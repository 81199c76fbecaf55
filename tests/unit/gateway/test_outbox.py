import pytest

from servery_common.contracts import frames
from servery_gateway.long_body import PIECE_BYTES, LongBody
from servery_gateway.outbox import FRAME_BYTES, Outbox
from servery_gateway.transport import ReplicaRequest

NOW_MS = 5
TTL_MS = 1000


def request(id: int, body: bytes | LongBody = b"{}", traceparent: str | None = None) -> ReplicaRequest:
    return ReplicaRequest(
        id=id,
        content_type="application/json",
        request_id=f"r{id}",
        body=body,
        ttl_ms=TTL_MS,
        sent_at_ms=NOW_MS,
        stream_ttl_ms=9000,
        traceparent=traceparent,
    )


def kinds(frame) -> list[tuple[int, int]]:
    return [(record.kind, record.id) for record in frames.decode(b"".join(frame.parts))]


def test_short_requests_travel_in_one_frame() -> None:
    outbox = Outbox()
    for number in (1, 2, 3):
        outbox.add(request(number))
    frame = outbox.take_short()
    assert frame is not None
    assert kinds(frame) == [(frames.REQUEST, 1), (frames.REQUEST, 2), (frames.REQUEST, 3)]
    assert outbox.take_short() is None
    assert outbox.empty


def test_a_frame_is_never_longer_than_its_limit() -> None:
    outbox = Outbox()
    for number in range(1, 8):
        outbox.add(request(number, b"x" * 200_000))
    sizes = []
    while (frame := outbox.take_short()) is not None:
        sizes.append(len(b"".join(frame.parts)))
    assert len(sizes) == 4
    assert max(sizes) <= FRAME_BYTES


def test_the_head_carries_what_the_agent_needs() -> None:
    outbox = Outbox()
    outbox.add(request(1, traceparent="00-a-b-01"))
    frame = outbox.take_short()
    assert frame is not None
    (record,) = frames.decode(b"".join(frame.parts))
    assert record.head == {
        "ttl": 1000,
        "rid": "r1",
        "at": 5,
        "stream_ttl": 9000,
        "tp": "00-a-b-01",
    }


def test_only_a_frame_of_one_request_has_a_traceparent() -> None:
    outbox = Outbox()
    outbox.add(request(1, traceparent="one"))
    frame = outbox.take_short()
    assert frame is not None
    assert frame.traceparent == "one"
    outbox.add(request(2, traceparent="two"))
    outbox.add(request(3, traceparent="three"))
    frame = outbox.take_short()
    assert frame is not None
    assert frame.traceparent is None


def in_pieces(body: bytes) -> LongBody:
    """As a client's connection gives it."""
    pieces = LongBody()
    for at in range(0, len(body), 256_000):
        pieces.append(body[at : at + 256_000])
    return pieces


BODY = bytes(range(256)) * (6 * 1024 * 1024 // 256)


@pytest.mark.parametrize("body", [BODY, in_pieces(BODY)])
def test_a_long_body_stops_at_its_window_and_goes_on_when_it_opens(body: bytes | LongBody) -> None:
    outbox = Outbox()
    outbox.add(request(1, body))
    received = bytearray()

    def drain() -> int:
        before = len(received)
        while (frame := outbox.take_piece(NOW_MS)) is not None:
            assert len(b"".join(frame.parts)) <= FRAME_BYTES
            for record in frames.decode(b"".join(frame.parts)):
                assert record.kind == (frames.CHUNK if received else frames.REQUEST)
                assert record.head.get("total") == (None if received else len(body))
                received.extend(record.body)
        return len(received) - before

    first = drain()
    assert frames.WINDOW_BYTES - PIECE_BYTES < first <= frames.WINDOW_BYTES
    assert not outbox.has_piece
    outbox.open_window(1, PIECE_BYTES)
    assert drain() == PIECE_BYTES
    while len(received) < len(body):
        outbox.open_window(1, frames.WINDOW_BYTES)
        assert drain() > 0
    assert bytes(received) == bytes(body)
    assert not outbox.empty
    outbox.open_window(1, frames.WINDOW_BYTES)
    assert outbox.empty
    assert outbox.empty


def test_one_long_body_goes_after_the_other() -> None:
    outbox = Outbox()
    for number in (1, 2, 3):
        outbox.add(request(number, b"x" * (2 * PIECE_BYTES)))
    assert [outbox.is_waiting(number) for number in (1, 2, 3)] == [True] * 3
    frame = outbox.take_piece(NOW_MS)
    assert frame is not None
    order = [number for _, number in kinds(frame)]
    assert [outbox.is_waiting(number) for number in (1, 2, 3)] == [False, True, True]
    outbox.forget(1)
    for number in (2, 3):
        while (frame := outbox.take_piece(NOW_MS)) is not None:
            order += [number for _, number in kinds(frame)]
        outbox.open_window(number, PIECE_BYTES)
        assert outbox.take_piece(NOW_MS) is None
        outbox.open_window(number, PIECE_BYTES)
    assert order == [1, 2, 2, 3, 3]
    assert outbox.empty


def test_many_bodies_that_fit_into_a_window_have_one_window_together() -> None:
    outbox = Outbox()
    for number in range(1, 200):
        outbox.add(request(number, b"x" * (PIECE_BYTES + 1)))
    sent = 0
    while (frame := outbox.take_piece(NOW_MS)) is not None:
        sent += len(b"".join(frame.parts))
    assert sent <= frames.WINDOW_BYTES
    assert [outbox.is_waiting(number) for number in range(1, 200)] == [False] + [True] * 198


def test_the_time_a_body_waited_for_its_turn_is_no_delay_of_the_replica() -> None:
    outbox = Outbox()
    outbox.add(request(1, b"x" * (PIECE_BYTES + 1)))
    frame = outbox.take_piece(NOW_MS + 400)
    assert frame is not None
    (record,) = frames.decode(b"".join(frame.parts))
    assert record.head["at"] == NOW_MS + 400
    assert record.head["ttl"] == TTL_MS - 400


def test_a_request_that_was_not_sent_is_taken_back_without_a_word() -> None:
    outbox = Outbox()
    outbox.add(request(1))
    outbox.add(request(2, b"x" * (PIECE_BYTES + 1)))
    outbox.cancel(1)
    outbox.cancel(2)
    assert outbox.take_short() is None
    assert outbox.take_piece(NOW_MS) is None
    assert outbox.empty


def test_a_request_that_was_sent_is_cancelled_and_the_rest_of_its_body_dropped() -> None:
    outbox = Outbox()
    outbox.add(request(1))
    outbox.take_short()
    outbox.cancel(1)
    outbox.add(request(2, b"x" * (3 * PIECE_BYTES)))
    outbox.take_piece(NOW_MS)
    outbox.cancel(2)
    frame = outbox.take_short()
    assert frame is not None
    assert kinds(frame) == [(frames.CANCEL, 1), (frames.CANCEL, 2)]
    assert outbox.take_piece(NOW_MS) is None


def test_a_probe_is_an_empty_frame() -> None:
    outbox = Outbox()
    outbox.add_probe()
    frame = outbox.take_short()
    assert frame is not None
    assert b"".join(frame.parts) == b""
