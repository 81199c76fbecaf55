import tracemalloc

import pytest

from servery_common.contracts import frames
from servery_gateway.inbox import AnswerTooLong, Inbox
from servery_gateway.transport import Outcome


def test_a_short_answer_is_whole_at_once() -> None:
    assert Inbox(10).result(1, {"status": 200, "ct": "a/b"}, b"xy") == Outcome(200, "a/b", b"xy")


def test_a_long_answer_is_put_together_in_order() -> None:
    inbox = Inbox(10)
    assert inbox.result(1, {"status": 400, "ct": "a/b", "total": 5}, b"12") is None
    assert inbox.chunk(1, b"34") is None
    assert inbox.chunk(1, b"5") == Outcome(400, "a/b", b"12345")
    assert inbox.chunk(1, b"6") is None


@pytest.mark.parametrize("piece", [b"", b"3"])
def test_pieces_that_say_little_take_little_memory(piece: bytes) -> None:
    inbox = Inbox(10**7)
    inbox.result(1, {"status": 200, "total": 10**7}, b"12")
    tracemalloc.start()
    for _ in range(10_000):
        # A view of all that was read with it.
        inbox.chunk(1, memoryview(bytes(10_000))[: len(piece)])
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 200_000


def test_more_than_was_announced_is_no_answer() -> None:
    inbox = Inbox(10)
    inbox.result(1, {"status": 200, "total": 5}, b"12")
    with pytest.raises(frames.FrameError):
        inbox.chunk(1, b"3456")


def test_pieces_of_a_forgotten_answer_are_ignored() -> None:
    inbox = Inbox(10)
    inbox.result(1, {"status": 200, "total": 5}, b"12")
    inbox.forget(1)
    assert inbox.chunk(1, b"345") is None


def test_an_answer_that_is_too_long_is_not_begun() -> None:
    with pytest.raises(AnswerTooLong):
        Inbox(10).result(1, {"status": 200, "total": 11}, b"12")


def test_a_lost_request_says_so() -> None:
    outcome = Inbox(10).result(1, {"lost": True}, b"")
    assert outcome is not None
    assert outcome.lost


@pytest.mark.parametrize(
    ("said", "milliseconds"),
    [(2500, 2.5), (0, 0.0), (-1, None), ("1", None), ([1], None), (None, None), (10**400, 86_400_000.0)],
)
def test_the_time_of_a_prediction_is_read_from_whatever_the_replica_says(
    said: object, milliseconds: float | None
) -> None:
    outcome = Inbox(10).result(1, {"p": said}, b"")
    assert outcome is not None
    assert outcome.predict_ms == milliseconds
    assert (outcome.status, outcome.content_type) == (200, "application/json")
