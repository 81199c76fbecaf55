"""How messages look on the wire: JSON payloads, everything about them in the headers.

Jobs, events and signals are CloudEvents 1.0 in binary mode (``ce-…`` headers). Requests and answers carry
``servery-…`` headers: the type, the caller's patience, and for answers whether they are an error, a part of
something longer, or the end of a stream. The trace context is in ``traceparent``/``tracestate`` everywhere.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar
from uuid import uuid4

from pydantic import ValidationError

from servery_common.contracts.message import Message
from servery_common.errors import ServeryError
from servery_common.tracing import inject

M = TypeVar("M", bound=Message)

CE_ID = "ce-id"
CE_TYPE = "ce-type"
MESSAGE_ID = "Nats-Msg-Id"

TYPE = "servery-type"
TIMEOUT = "servery-timeout-ms"
PART = "servery-part"
STATUS = "servery-status"
ERROR = "error"
END = "end"

PART_BYTES = 512 * 1024
"""Longest payload of one answer message: half of NATS' default limit, so that headers always fit."""


class UndecodableError(ValueError):
    """The bytes are not the message they should be."""


@dataclass(frozen=True)
class Event:
    """A job or an event, ready to be sent or stored."""

    id: str
    type: str
    subject: str
    body: bytes
    trace: Mapping[str, str] = field(default_factory=dict[str, str])
    time: datetime = field(default_factory=lambda: datetime.now(UTC))

    def headers(self, source: str) -> dict[str, str]:
        """Return the CloudEvents headers; ``Nats-Msg-Id`` lets JetStream drop repetitions."""
        return {
            "ce-specversion": "1.0",
            CE_ID: self.id,
            CE_TYPE: self.type,
            "ce-source": source,
            "ce-time": self.time.isoformat(),
            "ce-datacontenttype": "application/json",
            MESSAGE_ID: self.id,
            **self.trace,
        }


def make_event(subject: str, message: Message, event_id: str | None = None) -> Event:
    """Make an event of a message, within the current trace."""
    return Event(
        id=event_id or uuid4().hex,
        type=message.message_type,
        subject=subject,
        body=encode(message),
        trace=inject(),
    )


def encode(message: Message) -> bytes:
    """Return the payload of a message."""
    return message.model_dump_json().encode()


def decode(message: type[M], payload: bytes) -> M:
    """Read a payload. Raises UndecodableError."""
    try:
        return message.model_validate_json(payload)
    except ValidationError as error:
        raise UndecodableError(f"not a {message.message_type}: {error}") from error


def decode_one_of(messages: Sequence[type[Message]], type_name: str | None, payload: bytes) -> Message:
    """Read a payload of one of several types. Raises UndecodableError, also for another type."""
    for message in messages:
        if message.message_type == type_name:
            return decode(message, payload)
    expected = ", ".join(message.message_type for message in messages)
    raise UndecodableError(f"a {type_name} where one of {expected} is expected")


def error_payload(error: ServeryError) -> bytes:
    """Return the payload of an error answer."""
    return json.dumps(error.to_wire()).encode()


def read_error(payload: bytes) -> ServeryError:
    """Read the payload of an error answer."""
    try:
        return ServeryError.from_wire(json.loads(payload))
    except (ValueError, AttributeError):
        return ServeryError("An error answer could not be read.")


def split(payload: bytes) -> Iterator[tuple[str | None, bytes]]:
    """Yield ``(part header, piece)``; the header is ``n/total``, None when one message is enough."""
    if len(payload) <= PART_BYTES:
        yield None, payload
        return
    total = -(-len(payload) // PART_BYTES)
    for index in range(total):
        yield f"{index + 1}/{total}", payload[index * PART_BYTES : (index + 1) * PART_BYTES]


class Assembly:
    """Puts an answer that came in parts together again."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def add(self, part: str | None, piece: bytes) -> bytes | None:
        """Take a piece in; returns the whole once it is complete. Raises UndecodableError on a gap."""
        if part is None:
            return piece
        number, _, total = part.partition("/")
        if not (number.isdigit() and total.isdigit()) or int(number) != len(self._pieces) + 1:
            raise UndecodableError(f"part {part} where part {len(self._pieces) + 1} is expected")
        self._pieces.append(piece)
        if int(number) < int(total):
            return None
        whole = b"".join(self._pieces)
        self._pieces.clear()
        return whole


def operation(subject: str) -> str:
    """Return what a subject is about, without ids: ``builder.describe``, ``worker.heartbeat``, ``build``."""
    tokens = subject.split(".")
    if tokens[1:2] == ["jobs"]:
        return ".".join(tokens[2:3])
    return ".".join(tokens[2:4])
