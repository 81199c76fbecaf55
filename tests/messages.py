"""Messages that exist for tests alone."""

from servery_common.contracts.message import Message


class Ask(Message, type="test.ask.v1"):
    text: str


class Answer(Message, type="test.answer.v1"):
    text: str


class Other(Message, type="test.other.v1"):
    number: int
