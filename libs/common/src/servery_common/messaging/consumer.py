"""Consume jobs and events: pull, decode, handle, acknowledge; one message after the other.

The order of events is kept as long as nothing fails. Acknowledgement comes after the handler's work is
committed, so a crash repeats the message; handlers are idempotent. While a handler runs, the server is told
that it does. What fails is asked for again after a growing delay; what cannot be read or has failed for
about an hour is logged as an error and dropped, so that it does not hold up the rest for ever.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js import errors as js_errors
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from servery_common.backoff import full_jitter
from servery_common.contracts.message import Message
from servery_common.messaging import envelope, streams
from servery_common.messaging.client import ResilientClient
from servery_common.messaging.port import Handler
from servery_common.tracing import extract

log = structlog.get_logger(__name__)
tracer = trace.get_tracer(__name__)

ACK_WAIT_SECONDS = 30.0
PROGRESS_SECONDS = 10.0
MAX_DELIVERIES = 70
FETCH_SECONDS = 15.0

_FAILURES = (nats_errors.Error, js_errors.Error, OSError, TimeoutError)


def redelivery_delay(deliveries: int) -> float:
    """Return the seconds to wait after the n-th failed delivery: 0.5, 1, 2, … and at most 60."""
    return min(60.0, 0.5 * 2 ** min(deliveries - 1, 10))


@dataclass(frozen=True)
class Consumer:
    """A durable consumer of one stream."""

    client: ResilientClient
    js: JetStreamContext
    stream: str
    durable: str
    subject_filter: str
    handlers: Mapping[type[Message], Handler]

    async def run(self) -> None:
        """Consume for ever."""
        delays = full_jitter(0.1, 2.0)
        while True:
            try:
                await self._declare()
                delays = full_jitter(0.1, 2.0)
                await self._pull()
            except _FAILURES as error:
                log.warning("consume_interrupted", durable=self.durable, error=repr(error))
            await asyncio.sleep(next(delays))

    async def _declare(self) -> None:
        config = ConsumerConfig(
            name=self.durable,
            durable_name=self.durable,
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_SECONDS,
            # The bound is in ``_handle``, where the last attempt can be logged; here it would be silent.
            max_deliver=-1,
            filter_subject=self.subject_filter,
        )
        try:
            await self.js.add_consumer(self.stream, config)
        except js_errors.NotFoundError:
            await streams.declare(self.js)
            await self.js.add_consumer(self.stream, config)

    async def _pull(self) -> None:
        """Handle messages until the connection is lost."""
        lost = asyncio.Event()
        self.client.disconnect_callbacks.append(lost.set)
        subscription = await self.js.pull_subscribe_bind(self.durable, stream=self.stream)
        lost_task = asyncio.create_task(lost.wait())
        fetch: asyncio.Future[list[Msg]] | None = None
        try:
            while not lost.is_set():
                fetch = asyncio.ensure_future(subscription.fetch(1, FETCH_SECONDS))
                await asyncio.wait({fetch, lost_task}, return_when=asyncio.FIRST_COMPLETED)
                if not fetch.done():
                    return
                try:
                    messages = fetch.result()
                except TimeoutError:  # there was none
                    continue
                for msg in messages:
                    await self._handle(msg)
        finally:
            lost_task.cancel()
            if fetch is not None:
                fetch.cancel()
                await asyncio.gather(fetch, return_exceptions=True)
            self.client.disconnect_callbacks.remove(lost.set)
            with contextlib.suppress(nats_errors.Error):
                await subscription.unsubscribe()

    async def _handle(self, msg: Msg) -> None:
        headers = msg.headers or {}
        deliveries = msg.metadata.num_delivered
        fields = {
            "durable": self.durable,
            "event_id": headers.get(envelope.CE_ID),
            "event_type": headers.get(envelope.CE_TYPE),
            "deliveries": deliveries,
        }
        if deliveries > MAX_DELIVERIES:
            log.error("event_dropped", reason="it failed too often", **fields)
            await msg.term()
            return
        try:
            message = envelope.decode_one_of(list(self.handlers), headers.get(envelope.CE_TYPE), msg.data)
        except envelope.UndecodableError as error:
            log.error("event_dropped", reason=str(error), **fields)
            await msg.term()
            return
        with tracer.start_as_current_span(
            f"{envelope.operation(msg.subject)} process",
            context=extract(headers),
            kind=SpanKind.CONSUMER,
        ) as span:
            progress = asyncio.create_task(_report_progress(msg))
            try:
                await self.handlers[type(message)](message)
            except Exception as error:
                span.record_exception(error)
                log.warning("event_handler_failed", **fields, exc_info=True)
                await msg.nak(redelivery_delay(deliveries))
            else:
                await msg.ack()
            finally:
                progress.cancel()


async def _report_progress(msg: Msg) -> None:
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        with contextlib.suppress(nats_errors.Error):
            await msg.in_progress()
