"""The connection scoring frames travel on: no task, queue or turn of the event loop between socket and handler.

nats-py connects, subscribes, pings and reconnects. What it does for each message besides (a queue and a task for each
subscription, another task that writes, some copies of the payload) takes longer than a fast prediction: here messages
are handed over as they are read, and written as they are sent.
"""

# It reaches into nats-py's client, as ``client`` does.
# pyright: reportPrivateUsage=false

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import structlog
from nats import errors
from nats.aio.client import Srv
from nats.aio.subscription import Subscription

from servery_common.fair_reading import let_others_read
from servery_common.messaging.client import ResilientClient
from servery_common.messaging.wire import MessageHandler, WireReader

log = structlog.get_logger(__name__)

JOINED_BYTES = 64 * 1024
"""Parts of a message up to this long are copied together, which takes less than to write them as they are."""

FINISH_SECONDS = 2
"""A server that does not answer for so long has lost what was under way."""


class InferenceClient(ResilientClient):
    """Made by ``connection.connect_inference``. Handlers must not wait, and what they raise is logged."""

    def __init__(self) -> None:
        super().__init__()
        self._handlers: dict[bytes, MessageHandler] = {}
        self._received: dict[str, Subscription] = {}
        self.losses = 0
        """How often the connection was lost: what was sent before may not have arrived."""
        self.disconnect_callbacks.append(self._note_loss)

    async def receive(self, subject: str, handler: MessageHandler) -> None:
        """Call ``handler`` for each message on this subject, which may end in a wildcard, also after a reconnect."""
        # The id the subscription is about to get: a message may be read as soon as it is written.
        self._handlers[str(self._sid + 1).encode()] = guarded(handler)
        self._received[subject] = await self.subscribe(subject)

    async def ignore(self, subject: str) -> None:
        """Receive no more on this subject. Raises nats.errors.Error without a connection."""
        subscription = self._received.pop(subject, None)
        if subscription is not None:
            self._handlers.pop(str(subscription._id).encode(), None)
            await subscription.unsubscribe()

    def redirect(self, subject: str, handler: MessageHandler) -> None:
        """Call another handler from the next message on this subject on."""
        self._handlers[str(self._received[subject]._id).encode()] = guarded(handler)

    async def finish(self) -> None:
        """Receive no more, and return when all that was sent before, either way, has arrived.

        Raises nats.errors.Error or OSError when that cannot be known: then some of it may be lost.
        """
        received, self._received = self._received, {}
        # Their handlers stay until the server has taken note: some messages may be on their way.
        for subscription in received.values():
            await subscription.unsubscribe()
        losses = self.losses
        await self.flush(FINISH_SECONDS)
        if losses != self.losses or not self.is_connected:
            raise errors.ConnectionClosedError
        self._handlers.clear()

    def send(
        self,
        subject: str,
        payload: bytes | Sequence[bytes | memoryview],
        *,
        reply: str = "",
        traceparent: str | None = None,
    ) -> None:
        """Write a message, whose payload may come in parts; never waits.

        Raises OutboundBufferLimitError without a connection: a message kept for later would be stale by then.
        Raises MaxPayloadError when the server would not take it.
        """
        if not self.is_connected:
            raise errors.OutboundBufferLimitError
        parts = (payload,) if isinstance(payload, bytes) else payload
        headers = b"" if traceparent is None else f"NATS/1.0\r\ntraceparent: {traceparent}\r\n\r\n".encode()
        size = len(headers) + sum(map(len, parts))
        if size > self._max_payload:
            raise errors.MaxPayloadError
        to = f"{subject} {reply}" if reply else subject
        line = f"HPUB {to} {len(headers)} {size}\r\n" if headers else f"PUB {to} {size}\r\n"
        message = (line.encode(), headers, *parts, b"\r\n")
        transport = self._wire
        if self._pending:
            # What nats-py has yet to write, such as a subscription, was ordered before.
            transport.writelines(self._pending)
            self._pending = []
            self._pending_data_size = 0
        if size < JOINED_BYTES:
            transport.write(b"".join(message))
        else:
            transport.writelines(message)

    @property
    def unsent(self) -> int:
        """Bytes that were sent and are not with the system yet."""
        if not self.is_connected:
            return 0
        return self._pending_data_size + self._wire.get_write_buffer_size()

    def _note_loss(self) -> None:
        self.losses += 1

    @property
    def _wire(self) -> asyncio.WriteTransport:
        assert self._transport is not None
        return cast(Any, self._transport)._io_writer.transport

    async def _connect_to_server(self, s: Srv) -> None:
        await super()._connect_to_server(s)
        if getattr(self._transport, "_io_writer", None) is None:
            raise errors.Error("scoring needs nats:// or tls:// as the scheme of NATS_URL")

    async def _read_loop(self) -> None:
        others: asyncio.Queue[bytes | None] = asyncio.Queue()
        protocol = _Inline.take_over(self._transport, WireReader(self._handlers, others.put_nowait), others)
        try:
            while (line := await others.get()) is not None:
                await self._ps.parse(line)
            error = protocol.failure or errors.UnexpectedEOF()
        except (errors.Error, OSError) as raised:
            error = raised
        await self._error_cb(error)
        await self._process_op_err(error)


class _Inline(asyncio.Protocol):
    """Takes the place of the streams nats-py reads from; whoever waits for those to be writable or closed still may."""

    def __init__(
        self, transport: asyncio.Transport, reader: WireReader, others: asyncio.Queue[bytes | None]
    ) -> None:
        self.failure: Exception | None = None
        self._transport = transport
        self._before = transport.get_protocol()
        self._reader = reader
        self._others = others

    @classmethod
    def take_over(cls, nats: Any, reader: WireReader, others: asyncio.Queue[bytes | None]) -> "_Inline":
        transport, stream = nats._io_writer.transport, nats._io_reader
        self = cls(transport, reader, others)
        transport.set_protocol(self)
        arrived = bytes(stream._buffer)
        stream._buffer.clear()
        stream._maybe_resume_transport()
        if arrived:
            self.data_received(arrived)
        if stream.at_eof() or transport.is_closing():
            others.put_nowait(None)
        return self

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
        except errors.ProtocolError as error:
            self.failure = error
            self._others.put_nowait(None)
        let_others_read(self._transport, len(data))

    def eof_received(self) -> None:
        self._others.put_nowait(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._before.connection_lost(exc)
        self.failure = self.failure or exc
        self._others.put_nowait(None)

    def pause_writing(self) -> None:
        self._before.pause_writing()

    def resume_writing(self) -> None:
        self._before.resume_writing()


def guarded(handler: MessageHandler) -> MessageHandler:
    """Return a handler that logs what this one raises."""

    def handle(payload: memoryview, reply: str, headers: bytes, subject: bytes) -> None:
        try:
            handler(payload, reply, headers, subject)
        except Exception:
            # Raised into the event loop it would close the connection, on which others wait for their answers.
            log.exception("message_not_handled", bytes=len(payload), reply=reply)

    return handle
