"""Scoring frames: the bytes between gateway, agent and runner. Standard library only.

A frame is any number of records one after the other, so that requests of one event-loop tick travel in
one NATS message, and the agent hands a record on to the runner without looking into its body. A record is
a fixed header, a small JSON head and raw bytes::

    kind u8 | flags u8 | head length u16 | body length u32 | id u64 | head (JSON, UTF-8) | body

A value that most records share is left out of the head (status 200, JSON), so that most heads are short or empty.

Who sends what::

    gateway -> agent    REQUEST, CHUNK, CANCEL, WINDOW
    agent   -> gateway  ACCEPT, REFUSE, RESULT, CHUNK, END, WINDOW
    agent   -> runner   LOAD, REQUEST, CANCEL, WINDOW    (over a socket pair)
    runner  -> agent    READY, FAILED, RESULT, CHUNK, END

The id names one request between two ends and is chosen by the sender of the REQUEST. A body longer than
``CHUNK_BYTES`` is cut: the first record carries ``total`` in its head and the first piece, CHUNK records
the rest in order. A sender keeps at most ``WINDOW_BYTES`` of one body unacknowledged; the receiver opens the
window with WINDOW records (``bytes`` in the head) as it takes pieces in, the last ones too: to one receiver it sends
the next such body when the one before was taken in.

An answer whose length nobody knows yet is streamed: a RESULT with the flag STREAM and the first bytes, CHUNKs
as there is more, and one END. The runner keeps at most ``STREAM_WINDOW_BYTES`` of it unacknowledged; WINDOW records
come from the gateway as the client takes the bytes, through the agent, so a slow client slows the model and no
process holds more than a window. As long as its client is there, a gateway sends one at least every few seconds, of 0
bytes if need be: an agent ends a stream of which it heard nothing for the endpoint's timeout. An END that is missing,
or has a body, means that the answer is not whole.

No two messages from one gateway to one replica are equal, if they would do something twice: a REQUEST and a CANCEL name
what they are about, CHUNK and WINDOW records have ``n`` in their heads, another number each. So a replica can tell that
it got one message twice, over two connections.

Python 3.9 and up: this file is also part of the runner overlay, inside the model's own environment.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

HEADER = struct.Struct("!BBHIQ")

CHUNK_BYTES = 512 * 1024
"""Longest body piece of a record: half of NATS' default message limit."""
WINDOW_BYTES = 1024 * 1024
"""Bytes of one body that may be under way unacknowledged: two of the longest pieces, one that is written while another
is read. It is what a short request may find in front of it, and far below the 64 MiB NATS holds for a reader."""
STREAM_WINDOW_BYTES = 1024 * 1024
"""Bytes of one streamed answer that may be under way unacknowledged: two of the longest pieces."""

ACCEPT_WITHIN_MS = 250
"""An agent that reads a REQUEST this long after it was sent refuses it as ``expired``. A gateway gives an attempt up
later than that, so that no replica starts what was given to another one meanwhile."""

# Flags.
TRACED = 1
"""On a REQUEST: times of all stages are wanted in the head of its RESULT or END."""
SOLO = 2
"""On a REQUEST to a runner: to be predicted by itself."""
NOT_RUN = 4
"""On a RESULT of a runner: the request was canceled, or its time had passed, before the model saw it."""
STREAM = 8
"""On a RESULT: the body is only the first bytes of an answer that ends with END."""

# Kinds of records.
REQUEST = 1
"""Head: ``ct`` content type (absent: JSON), ``ttl`` milliseconds left, ``tp`` traceparent, ``rid`` request id,
``total`` bytes of body, ``at`` epoch milliseconds when the gateway sent it (an agent that was frozen can see that a
request is old), ``stream_ttl`` milliseconds that the answer may go on from its beginning when it is streamed. To a
runner the head is no JSON, but what ``pack_order`` makes."""
CHUNK = 2
CANCEL = 3
"""The caller left, or its deadline passed."""
WINDOW = 4
"""Head: ``bytes`` taken in since the last WINDOW record; 0 says only that a streamed answer is still wanted."""
ACCEPT = 5
"""The agent took these requests (``accepted``): each will be answered by it or not at all, and never run elsewhere."""
REFUSE = 6
"""Head: ``reason`` busy | draining | expired | unknown. The request was not run; another replica may."""
RESULT = 7
"""Head: ``status`` HTTP status (absent: 200), ``ct`` content type (absent: JSON), ``total``, ``p`` microseconds that
the model's ``predict`` took; ``lost`` true when the runner died under the request. Of a TRACED request also ``n``,
how many requests shared the prediction, and ``t`` {stage: [start_ns, end_ns]} in epoch nanoseconds."""
LOAD = 8
"""Head: what the runner should load; the first record on a fresh socket."""
READY = 9
"""The model is loaded. Head: what is known of it."""
FAILED = 10
"""The model cannot be loaded. Head: ``stage``, ``error``, ``traceback``."""
END = 11
"""Last record of a streamed answer. Head: ``p``, ``t`` and ``lost`` as in RESULT, and ``status`` with the error in the
body when the answer broke off."""


_ORDER = struct.Struct("=d")


class Record(NamedTuple):
    """One record of a frame."""

    kind: int
    id: int
    head: dict[str, Any]
    body: bytes | memoryview
    flags: int = 0


class RawRecord(NamedTuple):
    """One record whose head was not read: enough to hand it on."""

    kind: int
    flags: int
    id: int
    head: bytes
    body: bytes | memoryview


class FrameError(ValueError):
    """The bytes are not a frame."""


_encode_head = json.JSONEncoder(separators=(",", ":")).encode


def encode(
    kind: int, id: int, head: dict[str, Any] | None = None, body: bytes | memoryview = b"", flags: int = 0
) -> bytes:
    """Return one record as bytes; records may simply be concatenated."""
    return pack(kind, id, pack_head(head or {}), body, flags)


def pack_head(head: dict[str, Any]) -> bytes:
    """Return a head as it stands in a record."""
    return _encode_head(head).encode() if head else b""


def pack(
    kind: int, id: int, head: bytes, body: bytes | bytearray | memoryview = b"", flags: int = 0
) -> bytes:
    """Return one record whose head is JSON already."""
    return b"".join((start(kind, id, head, len(body), flags), body))


def start(kind: int, id: int, head: bytes, body_length: int, flags: int = 0) -> bytes:
    """Return what stands before the body, for one that is too long to be copied."""
    return HEADER.pack(kind, flags, len(head), body_length, id) + head


def decode(frame: bytes | memoryview) -> Iterator[Record]:
    """Yield the records of a complete frame. Bodies are views into it, heads may be shared: do not change them.

    Raises FrameError when cut short, ValueError when a head is not JSON.
    """
    before, parsed = b"", dict[str, Any]()
    for kind, flags, number, head, body in scan(frame):
        # Answers of one prediction have the same head.
        if head != before:
            before, parsed = head, read_head(head)
        yield Record(kind, number, parsed, body, flags)


def scan(frame: bytes | memoryview) -> Iterator[RawRecord]:
    """Yield the records of a complete frame without reading their heads. Raises FrameError when cut short."""
    view = memoryview(frame)
    at, end = 0, len(view)
    while at < end:
        if end - at < HEADER.size:
            raise FrameError("frame ends inside a record header")
        kind, flags, head_length, body_length, number = HEADER.unpack_from(view, at)
        at += HEADER.size
        if end - at < head_length + body_length:
            raise FrameError("frame ends inside a record")
        head = bytes(view[at : at + head_length]) if head_length else b""
        at += head_length
        yield RawRecord(kind, flags, number, head, view[at : at + body_length])
        at += body_length


def read_head(head: bytes) -> dict[str, Any]:
    """Return a record's head. Raises FrameError when it is not a JSON object."""
    if not head:
        return {}
    try:
        parsed = json.loads(head)
    except ValueError as error:
        raise FrameError(f"a head that is not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise FrameError("a head that is not an object")
    return parsed


def pack_order(until: float, content_type: str) -> bytes:
    """Return the head of a REQUEST to a runner. ``until``: the time on the machine's monotonic clock after which nobody
    waits for the answer."""
    return _ORDER.pack(until) + content_type.encode()


def unpack_order(head: bytes) -> tuple[float, str]:
    """Return ``until`` and the content type."""
    return _ORDER.unpack_from(head)[0], head[_ORDER.size :].decode()


def accepted(ids: list[int]) -> bytes:
    """Return an ACCEPT record of these requests."""
    return pack(ACCEPT, 0, b"", struct.pack(f"!{len(ids)}Q", *ids))


def accepted_ids(body: bytes | memoryview) -> tuple[int, ...]:
    """Return the ids in an ACCEPT record. Raises FrameError."""
    if len(body) % 8:
        raise FrameError("ids of 8 bytes each were expected")
    return struct.unpack(f"!{len(body) // 8}Q", body)
