"""Just enough HTTP over raw ASGI: answers and headers."""

import functools
import random
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NamedTuple

import orjson

from servery_common.errors import ServeryError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

JSON = b"application/json"


class Answer(NamedTuple):
    """What the client is answered. Content-Length is added when it is sent."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[Header, ...] = ()


class ClientDisconnected(Exception):
    """The client left before it had an answer."""


def error_answer(error: ServeryError) -> Answer:
    """Return the answer an error becomes at the edge."""
    headers: tuple[Header, ...] = ()
    if error.retry_after is not None:
        headers = ((b"retry-after", str(error.retry_after).encode()),)
    return Answer(error.status, orjson.dumps(error.body()), headers=headers)


def json_answer(content: Mapping[str, Any], status: int = 200) -> Answer:
    """Return an answer with a JSON body."""
    return Answer(status, orjson.dumps(content))


async def send_answer(send: Send, answer: Answer, headers: list[Header]) -> None:
    """Send the answer with ``headers`` added to its own."""
    headers += answer.headers
    headers.append((b"content-type", answer.content_type))
    headers.append((b"content-length", b"%d" % len(answer.body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


@functools.lru_cache(maxsize=1024)
def header_value(text: str) -> bytes:
    """Return ``text`` as a header value; what may not stand in one (line breaks first of all) becomes ``?``."""
    return bytes(byte if 32 <= byte < 127 else 63 for byte in text.encode("ascii", "replace"))


MAX_REQUEST_ID = 128


def request_id_of(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the client's own request id if it is printable ASCII of sane length, else a new one."""
    given = headers.get(b"x-request-id")
    if given and len(given) <= MAX_REQUEST_ID and all(32 < byte < 127 for byte in given):
        return given
    # As uuid.uuid4() makes it, in a third of the time: it names a request and keeps nothing secret.
    digits = f"{random.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}".encode()


def client_of(scope: Scope) -> str | None:
    """Return the address the request came from, which is what a trusted proxy says; None: not known."""
    client = scope.get("client")
    return client[0] if client else None


def declared_length(headers: Mapping[bytes, bytes]) -> int | None:
    """Return the Content-Length, or None when the body comes in chunks. The HTTP parser has checked it."""
    value = headers.get(b"content-length")
    return int(value) if value is not None and value.isdigit() else None


def expects_continue(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the client waits for "100 Continue" before it sends the body.

    Answered without reading, it may send the body or not: nobody could tell where its next request
    begins, so that connection has to be closed.
    """
    return headers.get(b"expect", b"").lower() == b"100-continue"
