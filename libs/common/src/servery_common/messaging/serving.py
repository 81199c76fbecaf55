"""Answer what others ask: the server's half of request/reply over NATS.

nats-py runs the callbacks of a subscription one after the other, so each request gets its own task here. How
many run and how many wait is bounded; beyond that callers are told to come back. A request whose
caller has given up is dropped before it starts.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import structlog
from nats import errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from servery_common.contracts.message import Message
from servery_common.contracts.permissions import ANSWERS_BETWEEN_ACCOUNTS, inbox_prefix
from servery_common.errors import BadRequest, Internal, PermissionDenied, ServeryError, Unavailable
from servery_common.messaging import envelope
from servery_common.messaging.client import ResilientClient
from servery_common.tracing import extract

log = structlog.get_logger(__name__)
tracer = trace.get_tracer(__name__)

M = TypeVar("M", bound=Message)

MAX_RUNNING = 256
MAX_WAITING = 1024

Answer = Callable[[Any], AsyncIterator[Message]]
Sender = Callable[[Any], str] | None


class Responder:
    """Serves requests over one connection."""

    def __init__(self, client: ResilientClient) -> None:
        self._client = client
        self._subscriptions: list[Subscription] = []
        self._running: set[asyncio.Task[None]] = set()

    async def serve(
        self,
        subject: str,
        request: type[M],
        handler: Callable[[M], Awaitable[Message]],
        queue: str | None,
        sender: Callable[[M], str] | None = None,
    ) -> None:
        """See ``Bus.serve``."""

        async def once(message: M) -> AsyncIterator[Message]:
            yield await handler(message)

        await self._subscribe(subject, request, once, queue, stream=False, sender=sender)

    async def serve_stream(
        self,
        subject: str,
        request: type[M],
        handler: Callable[[M], AsyncIterator[Message]],
        queue: str | None,
    ) -> None:
        """See ``Bus.serve_stream``."""
        await self._subscribe(subject, request, handler, queue, stream=True)

    async def stop(self, grace: float) -> None:
        """Take nothing new, give what runs ``grace`` seconds, cancel the rest."""
        for subscription in self._subscriptions:
            try:
                await subscription.unsubscribe()
            except errors.Error:
                continue  # closed or lost: nothing arrives any more either
        if not self._running:
            return
        _, late = await asyncio.wait(self._running, timeout=grace)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _subscribe(
        self,
        subject: str,
        request: type[Message],
        answer: Answer,
        queue: str | None,
        *,
        stream: bool,
        sender: Sender = None,
    ) -> None:
        free = asyncio.Semaphore(MAX_RUNNING)
        waiting = 0

        async def take(msg: Msg) -> None:
            nonlocal waiting
            if sender is not None and not _answers_its_sender(msg):
                log.warning("answer_for_another", subject=msg.subject, reply=msg.reply[:100])
                return
            if waiting >= MAX_WAITING:
                await self._send_error(msg, Unavailable("Too many requests wait to be handled."))
                return
            waiting += 1
            task = asyncio.create_task(run(msg, asyncio.get_running_loop().time()))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

        async def run(msg: Msg, arrived: float) -> None:
            nonlocal waiting
            try:
                await free.acquire()
            finally:
                waiting -= 1
            try:
                if expired(msg, asyncio.get_running_loop().time() - arrived):
                    log.info("request_expired", operation=envelope.operation(subject))
                    return
                await self._answer(msg, request, answer, stream=stream, sender=sender)
            finally:
                free.release()

        subscription = await self._client.subscribe(subject, queue=queue or "", cb=take)
        self._subscriptions.append(subscription)
        await self._client.settle()

    async def _answer(
        self, msg: Msg, request: type[Message], answer: Answer, *, stream: bool, sender: Sender
    ) -> None:
        operation = envelope.operation(msg.subject)
        with tracer.start_as_current_span(
            f"{operation} process", context=extract(msg.headers or {}), kind=SpanKind.SERVER
        ) as span:
            try:
                async for message in answer(_read(msg, request, sender)):
                    await self._send(msg, envelope.encode(message), type=message.message_type)
                if stream:
                    await self._send(msg, b"", status=envelope.END)
            except ServeryError as error:
                span.set_attribute("error.type", error.error_code)
                await self._send_error(msg, error)
            except (errors.Error, OSError) as error:
                # The caller was told by its own lost connection or will be by its timeout.
                log.warning("answer_not_sent", operation=operation, error=repr(error))
            except Exception as error:
                span.record_exception(error)
                log.error("request_failed", operation=operation, exc_info=True)
                await self._send_error(msg, Internal(f"{operation} failed unexpectedly."))

    async def _send_error(self, msg: Msg, error: ServeryError) -> None:
        try:
            await self._send(msg, envelope.error_payload(error), status=envelope.ERROR)
        except (errors.Error, OSError) as lost:
            log.warning("answer_not_sent", subject=msg.subject, error=repr(lost))

    async def _send(
        self, msg: Msg, payload: bytes, *, type: str | None = None, status: str | None = None
    ) -> None:
        if not msg.reply:
            return
        headers = {envelope.TYPE: type, envelope.STATUS: status}
        for part, piece in envelope.split(payload):
            present = {n: v for n, v in (headers | {envelope.PART: part}).items() if v is not None}
            await self._client.publish(msg.reply, piece, headers=present)


def expired(msg: Msg, waited: float) -> bool:
    """Whether the caller of a request has given up after it waited here for so many seconds."""
    patience = (msg.headers or {}).get(envelope.TIMEOUT, "")
    return patience.isdigit() and waited * 1000 >= int(patience)


def _answers_its_sender(msg: Msg) -> bool:
    """Whether the answer goes to an inbox of who may use the subject. The server checks no reply subject: the answer
    would come from this service, which may publish where that sender may not.

    What comes from a compute plane's account has a reply subject that the server made, and nobody else listens to."""
    sender = msg.subject.rpartition(".")[2]
    return not msg.reply or msg.reply.startswith((f"{inbox_prefix(sender)}.", ANSWERS_BETWEEN_ACCOUNTS))


def _read(msg: Msg, request: type[Message], sender: Sender) -> Message:
    try:
        message = envelope.decode_one_of([request], (msg.headers or {}).get(envelope.TYPE), msg.data)
    except envelope.UndecodableError as error:
        raise BadRequest(f"The request cannot be read: {error}") from error
    if sender is not None and sender(message) != msg.subject.rpartition(".")[2]:
        raise PermissionDenied("The request is in the name of another one than its sender.")
    return message
