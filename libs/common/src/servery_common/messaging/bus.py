"""The message bus over NATS: one connection, all verbs.

``connect_bus`` is the only thing a composition root needs; everybody else sees the ``Bus`` protocol.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import structlog
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import errors as js_errors
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from servery_common.backoff import full_jitter
from servery_common.contracts.message import Message
from servery_common.errors import Unavailable
from servery_common.messaging import envelope, streams
from servery_common.messaging.client import ResilientClient
from servery_common.messaging.connection import client_connection, connect_inference
from servery_common.messaging.consumer import Consumer
from servery_common.messaging.envelope import Event
from servery_common.messaging.kv import Buckets
from servery_common.messaging.port import Bus, Handler, KvChange
from servery_common.messaging.requests import Requester, too_large
from servery_common.messaging.serving import Responder
from servery_common.settings import NatsSettings
from servery_common.tracing import extract

__all__ = ["Bus", "KvChange", "NatsBus", "connect_bus", "connect_inference"]

log = structlog.get_logger(__name__)
tracer = trace.get_tracer(__name__)

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)

STOP_SECONDS = 5.0
"""How long requests that are being answered may take when the bus is closed."""

_FAILURES = (nats_errors.Error, js_errors.Error, OSError, TimeoutError)


@contextlib.asynccontextmanager
async def connect_bus(
    settings: NatsSettings, *, name: str, declare: bool = True
) -> AsyncGenerator["NatsBus"]:
    """Connect and declare the streams, waiting for NATS as long as it takes; close at the end.

    Without ``declare`` that is left to others: for those who only follow or use none, and may not.
    """
    async with client_connection(settings, name=name) as client:
        bus = NatsBus(client, name, declare=declare)
        await bus.start()
        try:
            yield bus
        finally:
            await bus.stop()


class NatsBus(Bus):
    """See ``Bus``. Made by ``connect_bus``."""

    def __init__(self, client: ResilientClient, name: str, *, declare: bool) -> None:
        self._client = client
        self._declares = declare
        self._source = f"servery/{name}"
        self._js = client.jetstream()
        self._requester = Requester(client)
        self._responder = Responder(client)
        self._buckets = Buckets(client, self._js, declare=declare)
        self._signals: list[Subscription] = []
        self._declaring: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen for answers and, if it is to, declare streams; also again after each reconnect."""
        await self._requester.start()
        if self._declares:
            await self._declare()
            self._client.reconnect_callbacks.append(self._redeclare)

    async def stop(self) -> None:
        """Take nothing new and finish what is being answered."""
        if self._declaring is not None:
            self._declaring.cancel()
        for subscription in self._signals:
            with contextlib.suppress(nats_errors.Error):
                await subscription.unsubscribe()
        await self._responder.stop(STOP_SECONDS)

    @property
    def connected(self) -> bool:
        return self._client.is_connected

    @property
    def nats(self) -> Client:
        """The NATS client itself. For the inference path only."""
        return self._client

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        self._client.disconnect_callbacks.append(callback)

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        self._client.reconnect_callbacks.append(callback)

    async def request(self, subject: str, message: Message, reply: type[R], *, timeout: float) -> R:
        return await self._requester.request(subject, message, reply, timeout)

    def request_stream(
        self, subject: str, message: Message, replies: Sequence[type[Message]], *, silence: float
    ) -> AsyncIterator[Message]:
        return self._requester.request_stream(subject, message, replies, silence)

    async def serve(
        self,
        subject: str,
        request: type[M],
        handler: Callable[[M], Awaitable[Message]],
        *,
        queue: str | None = None,
        sender: Callable[[M], str] | None = None,
    ) -> None:
        await self._responder.serve(subject, request, handler, queue, sender)

    async def serve_stream(
        self,
        subject: str,
        request: type[M],
        handler: Callable[[M], AsyncIterator[Message]],
        *,
        queue: str | None = None,
    ) -> None:
        await self._responder.serve_stream(subject, request, handler, queue)

    async def signal(self, subject: str, message: Message) -> None:
        if not self._client.is_connected:
            return
        event = envelope.make_event(subject, message)
        try:
            await self._client.publish(subject, event.body, headers=event.headers(self._source))
        except (nats_errors.Error, OSError) as error:
            log.warning("signal_not_sent", subject=subject, error=repr(error))

    async def on_signal(
        self,
        subject: str,
        message: type[M],
        handler: Callable[[M], Awaitable[None]],
        *,
        sender: Callable[[M], str] | None = None,
        queue: str = "",
    ) -> None:
        async def take(msg: Msg) -> None:
            headers = msg.headers or {}
            try:
                received = envelope.decode_one_of([message], headers.get(envelope.CE_TYPE), msg.data)
                assert isinstance(received, message)
                if sender is not None and sender(received) != msg.subject.rpartition(".")[2]:
                    log.warning("signal_of_another", subject=msg.subject, sender=sender(received)[:100])
                    return
                # Signals come every second: one that belongs to no trace does not begin one.
                if "traceparent" not in headers:
                    await handler(received)
                    return
                operation = envelope.operation(msg.subject)
                with tracer.start_as_current_span(
                    f"{operation} process", context=extract(headers), kind=SpanKind.CONSUMER
                ):
                    await handler(received)
            except envelope.UndecodableError as error:
                log.warning("signal_undecodable", subject=msg.subject, error=str(error))
            except Exception:
                log.error("signal_handler_failed", subject=msg.subject, exc_info=True)

        self._signals.append(await self._client.subscribe(subject, queue=queue, cb=take))
        await self._client.settle()

    async def publish(self, subject: str, message: Message, *, event_id: str) -> None:
        operation = envelope.operation(subject)
        with tracer.start_as_current_span(f"{operation} send", kind=SpanKind.PRODUCER):
            await self.publish_event(envelope.make_event(subject, message, event_id))

    async def publish_event(self, event: Event) -> None:
        if not self._client.is_connected:
            raise Unavailable("The message bus is not reachable.")
        try:
            await self._js.publish(event.subject, event.body, headers=event.headers(self._source))
        except nats_errors.MaxPayloadError as error:
            raise too_large(len(event.body), self._client.max_payload) from error
        except _FAILURES as error:
            raise Unavailable(f"{event.type} could not be stored: {error!r}") from error

    async def consume(
        self,
        stream: str,
        durable: str,
        subject_filter: str,
        handlers: Mapping[type[Message], Handler],
    ) -> None:
        await Consumer(self._client, self._js, stream, durable, subject_filter, handlers).run()

    async def kv_put(self, bucket: str, key: str, message: Message, *, expected: int | None = None) -> int:
        return await self._buckets.put(bucket, key, message, expected)

    async def kv_delete(self, bucket: str, key: str, *, expected: int | None = None) -> None:
        await self._buckets.delete(bucket, key, expected)

    async def kv_keys(self, bucket: str) -> list[str]:
        return await self._buckets.keys(bucket)

    def kv_watch(self, bucket: str, message: type[M]) -> AsyncIterator[KvChange[M]]:
        return self._buckets.watch(bucket, message)

    async def _declare(self) -> None:
        delays = full_jitter(0.1, 2.0)
        while True:
            try:
                return await streams.declare(self._js)
            except _FAILURES as error:
                log.warning("streams_not_declared", error=repr(error))
            await asyncio.sleep(next(delays))

    def _redeclare(self) -> None:
        # NATS may have come back without its disk.
        if self._declaring is None or self._declaring.done():
            self._declaring = asyncio.create_task(self._declare(), name="declare-streams")
