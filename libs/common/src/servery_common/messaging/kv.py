"""Key-value buckets: the last value of each key, and a way to follow them.

Following does not use nats-py's watcher, which stays silent for good when its server-side consumer is lost
in a restart. Here a follower is a loop of sessions: list everything, then apply changes, and on any doubt
(connection lost, a sequence number missing, a heartbeat late) begin a new session. What the sessions mean
for the follower is decided by ``kv_view.View``, without I/O.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

import structlog
from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js import errors as js_errors
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from servery_common.backoff import full_jitter
from servery_common.contracts.message import Message
from servery_common.errors import Conflict, Unavailable
from servery_common.messaging import envelope, streams
from servery_common.messaging.client import ResilientClient
from servery_common.messaging.kv_view import View
from servery_common.messaging.port import KvChange
from servery_common.messaging.requests import too_large

log = structlog.get_logger(__name__)

M = TypeVar("M", bound=Message)

HEARTBEAT_SECONDS = 2.0
SILENCE_SECONDS = 5.0
"""Without a message or heartbeat for so long, a session is over."""

_WRONG_LAST_SEQUENCE = 10071
"""JetStream's error code for an expectation that does not hold."""

_FAILURES = (nats_errors.Error, js_errors.Error, OSError, TimeoutError)


class Buckets:
    """The buckets of one connection."""

    def __init__(self, client: ResilientClient, js: JetStreamContext, *, declare: bool) -> None:
        self._client = client
        self._js = js
        self._declares = declare

    async def put(self, bucket: str, key: str, message: Message, expected: int | None = None) -> int:
        """See ``Bus.kv_put``."""
        headers = {envelope.CE_TYPE: message.message_type}
        return await self._store(bucket, key, envelope.encode(message), headers, expected)

    async def delete(self, bucket: str, key: str, expected: int | None = None) -> None:
        """See ``Bus.kv_delete``."""
        # The marker expires: without that, buckets would grow by every key they ever had.
        headers = {
            "KV-Operation": "PURGE",
            "Nats-Rollup": "sub",
            "Nats-TTL": str(streams.DELETE_MARKER_SECONDS),
        }
        await self._store(bucket, key, b"", headers, expected)

    async def keys(self, bucket: str) -> list[str]:
        """See ``Bus.kv_keys``."""
        keys: list[str] = []
        try:
            async with (
                asyncio.timeout(SILENCE_SECONDS),
                contextlib.aclosing(self._session(bucket, headers_only=True)) as session,
            ):
                async for step in session:
                    if step is None:
                        return keys
                    if isinstance(step, Msg) and not _is_delete(step):
                        keys.append(_key(bucket, step))
        except _FAILURES as error:
            raise _not_available(bucket) from error
        raise _not_available(bucket)

    async def watch(self, bucket: str, message: type[M]) -> AsyncIterator[KvChange[M]]:
        """See ``Bus.kv_watch``."""
        view = View[M]()
        delays = full_jitter(0.1, 1.0)
        found = False
        while True:
            try:
                async with contextlib.aclosing(self._session(bucket)) as session:
                    async for step in session:
                        found = True
                        for change in _apply(view, bucket, message, step):
                            yield change
                        if step is None:
                            delays = full_jitter(0.1, 1.0)
            except _FAILURES as error:
                # Who declares it may start later than who follows it: at the very first start that is nobody's fault.
                awaited = not found and isinstance(error, js_errors.NotFoundError)
                level = logging.DEBUG if awaited else logging.WARNING
                log.log(level, "bucket_watch_interrupted", bucket=bucket, error=repr(error))
            await asyncio.sleep(next(delays))

    async def _store(
        self, bucket: str, key: str, payload: bytes, headers: dict[str, str], expected: int | None
    ) -> int:
        if expected is not None:
            headers = headers | {"Nats-Expected-Last-Subject-Sequence": str(expected)}
        if not self._client.is_connected:
            raise _not_available(bucket)
        try:
            stored = await self._js.publish(streams.bucket_subject(bucket, key), payload, headers=headers)
        except nats_errors.MaxPayloadError as error:
            raise too_large(len(payload), self._client.max_payload) from error
        except _FAILURES as error:
            if isinstance(error, js_errors.APIError) and error.err_code == _WRONG_LAST_SEQUENCE:
                raise Conflict(f"The key {key} of the bucket {bucket} was changed meanwhile.") from error
            raise _not_available(bucket) from error
        return stored.seq

    async def _incarnation(self, bucket: str) -> str:
        name = streams.bucket_stream(bucket)
        try:
            info = await self._js.stream_info(name)
        except js_errors.NotFoundError:
            if not self._declares:
                raise
            await streams.declare(self._js)
            info = await self._js.stream_info(name)
        return str(info.created)

    async def _session(self, bucket: str, *, headers_only: bool = False) -> AsyncGenerator[str | Msg | None]:
        """Yield the bucket's incarnation, the last message of each key, None, then each new message.

        Ends when messages may have been missed.
        """
        arrived: asyncio.Queue[Msg | None] = asyncio.Queue()
        interrupted = False

        async def take(msg: Msg) -> None:
            arrived.put_nowait(msg)

        def lost() -> None:
            nonlocal interrupted
            interrupted = True
            arrived.put_nowait(None)

        inbox = self._client.new_inbox()
        self._client.disconnect_callbacks.append(lost)
        subscription = await self._client.subscribe(inbox, cb=take, pending_bytes_limit=0)
        try:
            incarnation = await self._incarnation(bucket)
            listing = await self._create_consumer(bucket, inbox, headers_only=headers_only)
            if interrupted:
                # NATS may have lost its disk in between: the consumer would list another incarnation.
                return
            yield incarnation
            if not listing:
                yield None
            sequence, listed = 0, not listing
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    msg = await arrived.get()
                if msg is None:
                    return
                headers = msg.headers or {}
                if "Status" in headers:
                    if int(headers.get("Nats-Last-Consumer", sequence)) != sequence:
                        return
                    continue
                sequence += 1
                if msg.metadata.sequence.consumer != sequence:
                    return
                yield msg
                # Fewer than counted arrive when a delete marker expired meanwhile.
                if not listed and (sequence >= listing or msg.metadata.num_pending == 0):
                    listed = True
                    yield None
        finally:
            self._client.disconnect_callbacks.remove(lost)
            with contextlib.suppress(nats_errors.Error):
                await subscription.unsubscribe()

    async def _create_consumer(self, bucket: str, inbox: str, *, headers_only: bool) -> int:
        """Let the server send everything to ``inbox``; returns how many messages there are now."""
        consumer = await self._js.add_consumer(
            streams.bucket_stream(bucket),
            ConsumerConfig(
                deliver_subject=inbox,
                deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
                ack_policy=AckPolicy.NONE,
                filter_subject=streams.bucket_subject(bucket, ">"),
                idle_heartbeat=HEARTBEAT_SECONDS,
                inactive_threshold=SILENCE_SECONDS,
                headers_only=headers_only,
                mem_storage=True,
                num_replicas=1,
                max_deliver=1,
            ),
        )
        return consumer.num_pending or 0


def _apply(view: View[M], bucket: str, message: type[M], step: str | Msg | None) -> list[KvChange[M]]:
    if step is None:
        return view.caught_up()
    if isinstance(step, str):
        view.begin(step)
        return []
    key, revision = _key(bucket, step), step.metadata.sequence.stream
    if _is_delete(step):
        return view.delete(key, revision)
    try:
        value = envelope.decode(message, step.data)
    except envelope.UndecodableError as error:
        log.error("bucket_value_undecodable", bucket=bucket, key=key, error=str(error))
        view.keep(key)
        return []
    return view.put(key, revision, value)


def _key(bucket: str, msg: Msg) -> str:
    return msg.subject[len(streams.bucket_subject(bucket, "")) :]


def _is_delete(msg: Msg) -> bool:
    headers = msg.headers or {}
    return headers.get("KV-Operation") in ("DEL", "PURGE") or "Nats-Marker-Reason" in headers


def _not_available(bucket: str) -> Unavailable:
    return Unavailable(f"The bucket {bucket} cannot be reached at the moment.")
