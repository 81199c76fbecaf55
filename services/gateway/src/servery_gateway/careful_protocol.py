"""uvicorn's HTTP protocol with the limits it lacks: on heads and trailers, and on clients that send or read nothing.

All of it holds before anybody knows who the client is. A head is kept in memory until it is complete, outside every
budget for bodies, and so are trailers and what stands behind the length of a chunk. A connection on which nothing is
under way costs a descriptor, one whose client takes no answers costs what was not taken.

``Upgrade`` is a wish, and whoever does not grant it answers as if it were not there (RFC 9110, 7.8); curl and Java's
client send it with ordinary requests. httptools ends such a message behind its head, so the body would be read as
another request. Therefore the parser does not get to see the header; where it does all the same, as for one that came
in pieces, the request is refused and nothing behind it is read.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from servery_common.errors import BadRequest
from servery_common.timer_wheel import TimerWheel
from servery_gateway.http import error_answer

MAX_QUIET_BYTES = 64 * 1024
"""Bytes of a head, or between two pieces of a body. Four times what other servers take, for OAuth tokens and baggage
are long."""

MAX_URL_BYTES = 8 * 1024
"""RFC 9112 asks for at least 8000."""
MAX_HEADERS = 256
"""In one head. Proxies and clients send a few dozen, other servers take 100 to 200; each costs an object or two."""

_UPGRADE = re.compile(rb"(?<=\n)upgrade(?=[ \t]*:)", re.IGNORECASE)
_HEAD_END = b"\r\n\r\n"


def idle_connections() -> "TimerWheel[CarefulProtocol]":
    """Return what ends connections on which nothing happened for too long, all of one process together."""
    return TimerWheel(asyncio.get_running_loop(), 1.0, lambda one: one.timeout_keep_alive_handler())


class CarefulProtocol(HttpToolsProtocol):
    """One connection of a client. A subclass calls ``watch`` when it has looked at what was received."""

    def __init__(self, *args: Any, idle: "TimerWheel[CarefulProtocol]", **options: Any) -> None:
        super().__init__(*args, **options)
        self._idle = idle
        self._idle_until: set[CarefulProtocol] | None = None
        self.url = b""
        self._reads_head = True
        self._tail = b""
        """The last bytes received, while a head is read: they may be the first of what ends it."""
        self._quiet_bytes = 0
        """Received since the last head or piece of a body was complete."""
        self._head_by: float | None = None
        """When a head that has begun has to be complete."""
        self._taken_by: float | None = None
        """When the client has to have taken something of what waits for it."""
        self._untaken = 0
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Implement asyncio.Protocol."""
        super().connection_made(transport)
        self._is_closing: Callable[[], bool] = transport.is_closing
        self.watch()

    def data_received(self, data: bytes) -> None:
        """Implement asyncio.Protocol."""
        if self._refused:
            return
        self._quiet_bytes += len(data)
        if self._reads_head and (b"pgrade" in data or b"PGRADE" in data):
            data = _without_upgrade(data, self._tail)
        super().data_received(data)
        if self._reads_head:
            self._tail = data[-3:] if len(data) > 2 else (self._tail + data)[-3:]
        if self._quiet_bytes > MAX_QUIET_BYTES and not self._refused:
            self._refuse_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Implement asyncio.Protocol."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def pause_writing(self) -> None:
        """Implement asyncio.Protocol: the client takes less than it is sent."""
        super().pause_writing()
        self._taken_by, self._untaken = self._soon(), 0
        if self._idle_until is None:
            self._idle_until = self._idle.add(self, self._taken_by)

    def resume_writing(self) -> None:
        """Implement asyncio.Protocol."""
        super().resume_writing()
        self._taken_by, self._untaken = None, 0
        self._unset_keepalive_if_required()
        self.watch()

    def begins_request(self) -> bool:
        """A head is complete. Whether there is a request to begin."""
        quiet, self._quiet_bytes = self._quiet_bytes, 0
        self._reads_head = False
        self._head_by = None
        if self._refused:
            return False
        if len(self.headers) > MAX_HEADERS or len(self.url) > MAX_URL_BYTES:
            self._refuse_head()
        elif quiet > MAX_QUIET_BYTES and self._head_bytes() > MAX_QUIET_BYTES:
            self._refuse_head()  # In one read with its end: only what was received is counted elsewhere.
        elif self.parser is not None and self.parser.should_upgrade():
            self.refuse(400, "CONNECT, and an Upgrade header that arrives in pieces, are not supported.")
        return not self._refused

    def ends_message(self) -> bool:
        """A message is complete. Whether it is one of a request that was begun."""
        self._reads_head = True
        self._quiet_bytes = 0
        self._head_by = None
        return not self._refused

    def refuse(self, status: int, message: str) -> None:
        """Answer what cannot be read on, behind the answers that are under way, and read nothing any more."""
        self._refused = True
        if self._is_closing():
            return
        before = cast(RequestResponseCycle | None, self.cycle)
        if before is not None and not before.response_complete and not before.more_body:
            before.keep_alive = False
            return
        answer = error_answer(BadRequest(message))
        head = [STATUS_LINE[status]]
        head += [b"%b: %b\r\n" % header for header in self.server_state.default_headers]
        head.append(b"content-type: %b\r\nconnection: close\r\n" % answer.content_type)
        head.append(b"content-length: %d\r\n\r\n" % len(answer.body))
        self.transport.write(b"".join(head) + answer.body)
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """As uvicorn does it, but in JSON, and never in the place of the answer to what came before."""
        self.refuse(400, msg)

    def watch(self) -> None:
        """See to it that somebody looks at this connection again when nothing happens on it."""
        if self._idle_until is not None:
            return
        when = self._taken_by
        if self._is_closing():
            # It is closed when the client has taken the rest.
            if not self.transport.get_write_buffer_size():
                return
            when = when or self._soon()
        elif when is None:
            before = cast(RequestResponseCycle | None, self.cycle)
            if before is not None and not before.response_complete:
                return  # A request is under way, and has time limits of its own.
            if self._head_by is None:
                self._head_by = self._soon()
            when = self._head_by
        self._idle_until = self._idle.add(self, when)

    def timeout_keep_alive_handler(self) -> None:
        """Nothing happened: end the connection, but for one whose client still takes what it was sent."""
        self._idle_until = None
        untaken = self.transport.get_write_buffer_size()
        if not untaken:
            self.transport.close()
        elif self._untaken and untaken >= self._untaken:
            self.transport.abort()
        else:
            self._untaken, again = untaken, self._soon()
            if self.flow.write_paused:
                self._taken_by = again
            self._idle_until = self._idle.add(self, again)

    def _refuse_head(self) -> None:
        if len(self.url) > MAX_URL_BYTES:
            self.refuse(414, f"The request's URL is longer than {MAX_URL_BYTES} bytes.")
        elif len(self.headers or ()) > MAX_HEADERS:
            self.refuse(431, f"The request has more than {MAX_HEADERS} headers.")
        else:
            self.refuse(431, f"The request's headers are longer than {MAX_QUIET_BYTES} bytes.")

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _soon(self) -> float:
        return self.loop.time() + self.timeout_keep_alive

    def _unset_keepalive_if_required(self) -> None:
        if self._idle_until is not None:
            self._idle_until.discard(self)
            self._idle_until = None


def _without_upgrade(data: bytes, tail: bytes) -> bytes:
    """Return the bytes with the header under another name, if it is in the head they begin or go on with.

    ``tail`` is what came just before: with it is seen where a line and the head end, though they were cut. A body must
    stay as it is, or its length would not be what was announced.
    """
    whole = tail + data
    end = whole.find(_HEAD_END)
    head, rest = (whole, b"") if end < 0 else (whole[:end], whole[end:])
    return (_UPGRADE.sub(b"x-ignored-upgrade", head) + rest)[len(tail) :]
