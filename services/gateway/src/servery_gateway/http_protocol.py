"""uvicorn's HTTP protocol, with a shorter way for short scoring requests and fewer system calls for all others.

What uvicorn does for each request (a task, an ASGI scope, events for body and answer, a timer for the idle connection)
takes longer than to admit and dispatch one. A scoring request whose body arrives with its headers is handed to
``ShortRequests`` instead. Everything else takes uvicorn's way unchanged, and is only told of a little later.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from servery_common.timer_wheel import TimerWheel
from servery_gateway.careful_protocol import CarefulProtocol
from servery_gateway.client_addresses import ClientAddresses
from servery_gateway.exchange import Target
from servery_gateway.http import Answer, Header, Send
from servery_gateway.joining_transport import JoiningTransport
from servery_gateway.paths import MAX_PATH_LENGTH, scoring_target
from servery_gateway.short_requests import ShortRequest, ShortRequests
from servery_gateway.unchunked import until_close

COPIED_BYTES = 64 * 1024
"""A body up to this long is copied behind its head, which takes less than to send both as they are."""


class GatewayProtocol(CarefulProtocol):
    """One connection of a client."""

    def __init__(
        self,
        *args: Any,
        short: ShortRequests,
        idle: TimerWheel[CarefulProtocol],
        clients: ClientAddresses,
        **options: Any,
    ) -> None:
        super().__init__(*args, idle=idle, **options)
        self._short = short
        self._clients = clients
        self._target: Target | None = None
        """Of a short request whose body is arriving."""
        self._head: list[Header] = []
        """Headers of the request that is being read."""
        self._body: list[bytes] = []
        self._cycle: _ShortCycle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Implement asyncio.Protocol."""
        # Not checked: the classes of uvloop's transports are not asyncio's.
        joining = JoiningTransport(cast(asyncio.Transport, transport), self.watch)
        super().connection_made(cast(asyncio.Transport, joining))

    def on_message_begin(self) -> None:
        """Implement httptools' protocol. The ASGI scope is made for those that need one."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def connection_lost(self, exc: Exception | None) -> None:
        """Implement asyncio.Protocol."""
        super().connection_lost(exc)
        if self._cycle is not None:
            self._cycle.left()

    def data_received(self, data: bytes) -> None:
        """Implement asyncio.Protocol."""
        super().data_received(data)
        if self._target is not None:
            # Its body is still on the way: it is not short.
            self._target = None
            if not self.transport.is_closing():
                self._take_the_long_way()
        self.watch()

    def on_headers_complete(self) -> None:
        """Implement httptools' protocol."""
        if not self.begins_request():
            return
        # Again: a request sent ahead may be read in the call that answered the one before.
        self._unset_keepalive_if_required()
        closing = self._is_closing()
        before = cast(RequestResponseCycle | None, self.cycle)
        if closing and before is not None and before.response_complete:
            return  # Sent behind the last request of this connection: it must not be run.
        # What may follow a chunked body is no header: nobody checked it, a proxy least of all.
        self._head, self.headers = self.headers, []
        self._target = None if closing else self._short_target()
        if self._target is None:
            self._hand_over()
        else:
            self._body = []

    def on_body(self, body: bytes) -> None:
        """Implement httptools' protocol."""
        if self._refused:
            return
        self._quiet_bytes = 0
        if self._target is None:
            super().on_body(body)
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Implement httptools' protocol."""
        if not self.ends_message():
            return
        target, self._target = self._target, None
        if target is None:
            super().on_message_complete()
            return
        parser = self._parser()
        version = parser.get_http_version()
        keep_alive = version != "1.0" and parser.should_keep_alive()
        cycle = _ShortCycle(self, version, keep_alive=keep_alive)
        before, self.cycle = self.cycle, cast(RequestResponseCycle, cycle)
        self._cycle = cycle
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        client = self._clients.of(self.client, self._head)
        cycle.request = self._short.begin(target, dict(self._head), client, body, cycle)
        if cycle.request is None:
            self.cycle, self._cycle = before, None
            self._take_the_long_way()
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """As uvicorn does it, but for the timer."""
        self.server_state.total_requests += 1
        if self._is_closing():
            return
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle_until = self._idle.add(self, self.loop.time() + self.timeout_keep_alive)

    def respond(self, cycle: "_ShortCycle", head: bytes, body: bytes) -> None:
        """Send the answer to a short request."""
        if self._is_closing():
            return
        transport = cast(JoiningTransport, self.transport)
        if len(body) <= COPIED_BYTES:
            transport.write_now(head + body)
        else:
            transport.write_now(head)
            transport.write_now(body)
        if not cycle.keep_alive:
            transport.close()
        self._cycle = None
        self.on_response_complete()

    def stream(self, cycle: "_ShortCycle", write: Callable[[Send], Awaitable[None]]) -> None:
        """Have uvicorn send the answer to what began as a short request."""

        async def application(_scope: Any, _receive: Any, send: Any) -> None:
            await write(send)

        streaming = RequestResponseCycle(
            scope=cast(Any, {"type": "http", "method": "POST", "http_version": cycle.http_version}),
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=cycle.keep_alive,
            on_response=self.on_response_complete,
        )
        streaming.more_body = False
        if self.cycle is cast(Any, cycle):
            self.cycle = streaming
        self._start_asgi_task(streaming, application)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if cycle.scope["http_version"] < "1.1":
            app = until_close(cycle, app)
        super()._start_asgi_task(cycle, app)

    def default_headers(self) -> bytes:
        """Return those that all answers have, as they are sent; uvicorn renews them each second."""
        headers = self.server_state.default_headers
        if headers is not _default_headers.of:
            _default_headers.of = headers
            _default_headers.encoded = b"".join(b"%b: %b\r\n" % header for header in headers)
        return _default_headers.encoded

    def _short_target(self) -> Target | None:
        """Return what a request names that may be short, None for any other."""
        if self.expect_100_continue:
            return None
        if self.flow.write_paused:
            return None  # The client does not take its answers: uvicorn waits until it does.
        before = cast(RequestResponseCycle | None, self.cycle)
        if before is not None and not before.response_complete:
            return None  # It was sent ahead, and has to wait for its turn.
        target, parser = _target(self.url), self._parser()
        if target is None or parser.get_method() != b"POST":
            return None
        return target

    def _parser(self) -> httptools.HttpRequestParser:
        assert self.parser is not None  # It calls.
        return self.parser

    def _hand_over(self) -> None:
        """Have uvicorn begin the request whose head was read."""
        url, expects = self.url, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(self._head)
        super().on_headers_complete()
        self.headers = []

    def _take_the_long_way(self) -> None:
        self.expect_100_continue = False  # It did not when its head was read: that is from behind its body.
        self._hand_over()
        for piece in self._body:
            super().on_body(piece)
        self._body = []


class _NoEvent:
    """Nobody waits for the body of a short request."""

    def set(self) -> None:
        pass


class _ShortCycle:
    """A short request where uvicorn keeps its cycle of a request and its answer. Implements ``Connection``."""

    __slots__ = ("disconnected", "http_version", "keep_alive", "protocol", "request", "response_complete")
    message_event = _NoEvent()
    more_body = False

    def __init__(self, protocol: GatewayProtocol, http_version: str, *, keep_alive: bool) -> None:
        self.protocol = protocol
        self.http_version = http_version
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False
        self.request: ShortRequest | None = None

    def respond(self, answer: Answer, headers: list[Header]) -> None:
        """Implement Connection."""
        self.response_complete = True
        parts = [STATUS_LINE[answer.status], self.protocol.default_headers()]
        for name, value in (*headers, *answer.headers):
            parts += (name, b": ", value, b"\r\n")
        parts += (b"content-type: ", answer.content_type, b"\r\ncontent-length: %d\r\n" % len(answer.body))
        parts.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        self.protocol.respond(self, b"".join(parts), answer.body)

    def stream(self, write: Callable[[Send], Awaitable[None]]) -> None:
        """Implement Connection."""
        if self.disconnected:
            return
        self.protocol.stream(self, write)

    def left(self) -> None:
        """The client is gone."""
        self.disconnected = True
        if self.request is not None:
            self.request.left()


class _DefaultHeaders:
    """Those of all answers, which uvicorn makes anew each second, and how they are sent."""

    of: list[Header] | None = None
    encoded = b""


_default_headers = _DefaultHeaders()


def _target(url: bytes) -> Target | None:
    """Return what a URL names if it is a plain scoring path."""
    return None if len(url) > MAX_PATH_LENGTH else _known_target(url)


@functools.lru_cache(maxsize=4096)
def _known_target(url: bytes) -> Target | None:
    return None if b"?" in url or b"%" in url or not url.isascii() else scoring_target(url.decode())
