from typing import Any

import pytest

from servery_common.contracts import frames
from servery_worker.answers import Answers

LONG = b"x" * (frames.WINDOW_BYTES + frames.CHUNK_BYTES)


class Sent:
    """Stands in for Replies and keeps what was sent."""

    def __init__(self) -> None:
        self.records: list[tuple[str, frames.Record]] = []

    def send(self, subject: str, *record: bytes | memoryview) -> None:
        self.records += [(subject, one) for one in frames.decode(b"".join(record))]

    def begun(self, subject: str) -> list[int]:
        return [one.id for to, one in self.records if to == subject and one.kind == frames.RESULT]

    def body(self, number: int) -> bytes:
        return b"".join(one.body for _, one in self.records if one.id == number)


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
async def answers(sent: Any) -> Answers:
    return Answers(sent)


async def test_a_gateway_is_sent_one_long_answer_after_the_other(answers: Answers, sent: Sent):
    for number in (1, 2):
        answers.send(("a", number), b"", LONG)
    answers.send(("b", 3), b"", LONG)
    answers.send(("a", 4), b"", b"short")
    assert sent.begun("a") == [1, 4]
    assert sent.begun("b") == [3]
    answers.on_window(("a", 1), frames.WINDOW_BYTES)
    assert sent.body(1) == LONG
    assert sent.begun("a") == [1, 4]
    answers.on_window(("a", 1), len(LONG) - frames.WINDOW_BYTES)
    assert sent.begun("a") == [1, 4, 2]


async def test_many_answers_that_fit_into_a_window_have_one_window_together(answers: Answers, sent: Sent):
    length = frames.CHUNK_BYTES + 1
    for number in range(1, 200):
        answers.send(("a", number), b"", bytes(length))
        assert sent.begun("a") == [1]
    for number in range(1, 200):
        assert sent.begun("a") == [*range(1, number + 1)]
        answers.on_window(("a", number), length)
    await answers.sent()


async def test_an_answer_nobody_wants_makes_room_for_the_next(answers: Answers, sent: Sent):
    for number in (1, 2, 3):
        answers.send(("a", number), b"", LONG)
    answers.drop(("a", 2))
    answers.drop(("a", 1))
    assert sent.begun("a") == [1, 3]


async def test_after_the_connection_was_lost_nothing_is_under_way(answers: Answers, sent: Sent):
    for number in (1, 2, 3):
        answers.send(("a", number), b"", LONG)
    answers.drop_all()
    await answers.sent()
    count = len(sent.records)
    answers.on_window(("a", 1), frames.WINDOW_BYTES)
    assert len(sent.records) == count
