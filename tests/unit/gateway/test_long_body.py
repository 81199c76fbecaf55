"""Bodies in pieces: the same bytes, whatever the pieces were and however they are cut."""

import sys

import pytest

from servery_gateway.long_body import SHORTEST_PIECE_BYTES, LongBody

BODY = bytes(range(251)) * 4000
STEPS = [1, 1000, SHORTEST_PIECE_BYTES - 1, SHORTEST_PIECE_BYTES, 256_000, len(BODY)]


def of(step: int) -> LongBody:
    body = LongBody()
    for at in range(0, len(BODY), step):
        body.append(BODY[at : at + step])
    return body


@pytest.mark.parametrize("step", STEPS)
def test_it_is_the_bytes_it_was_made_of(step: int) -> None:
    body = of(step)
    assert len(body) == len(BODY)
    assert bytes(body) == BODY


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("length", [7, 300_000, len(BODY)])
def test_it_can_be_cut_anywhere(step: int, length: int) -> None:
    body = of(step)
    cuts = [body.part(at, at + length) for at in range(0, len(BODY), length)][:50]
    assert b"".join(part for cut in cuts for part in cut) == BODY[: 50 * length]
    assert [sum(map(len, cut)) for cut in cuts[:-1]] == [length] * (len(cuts) - 1)


def test_it_may_grow_after_it_was_cut() -> None:
    body = LongBody()
    body.append(b"ab")
    assert b"".join(body.part(0, 2)) == b"ab"
    body.append(b"cd")
    assert b"".join(body.part(1, 4)) == b"bcd"


def test_one_sent_byte_by_byte_takes_little_more_memory_than_its_length() -> None:
    pieces = of(1).part(0, len(BODY))
    assert len(pieces) <= len(BODY) / SHORTEST_PIECE_BYTES + 1
    assert sum(sys.getsizeof(view.obj) for view in pieces) < 1.3 * len(BODY)
