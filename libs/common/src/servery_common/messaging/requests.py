"""Ask and be answered: the caller's half of request/reply over NATS.

All answers of one process arrive at one inbox, ``<prefix>.<who is asked>.<own>.<n>``, each at the subject of
its request: who may answer for the builder may not answer for anybody else (``contracts.permissions``). A request never
waits for somebody who cannot answer: "no responders" and a lost connection end it at once.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TypeVar

import structlog
from nats import errors
from nats.aio.msg import Msg
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from servery_common.contracts.message import Message
from servery_common.contracts.subjects import answerer
from servery_common.errors import BadRequest, Internal, Unavailable
from servery_common.messaging import envelope
from servery_common.messaging.client import ResilientClient
from servery_common.tracing import inject

log = structlog.get_logger(__name__)
tracer = trace.get_tracer(__name__)

R = TypeVar("R", bound=Message)

_NO_RESPONDERS = "503"
_LOST = object()
"""Put into the queue of each open request when the connection is lost."""


class Requester:
    """Sends requests over one connection."""

    def __init__(self, client: ResilientClient) -> None:
        self._client = client
        self._prefix, _, self._own = client.new_inbox().rpartition(".")
        self._numbers = itertools.count(1)
        self._open: dict[str, asyncio.Queue[Msg | object]] = {}

    async def start(self) -> None:
        """Listen to the inbox."""
        # Answers are limited by who asked for them; a limit here would only lose parts of them.
        await self._client.subscribe(f"{self._prefix}.*.{self._own}.*", cb=self._sort, pending_bytes_limit=0)
        self._client.disconnect_callbacks.append(self._fail_all)

    async def request(self, subject: str, message: Message, reply: type[R], timeout: float) -> R:
        """See ``Bus.request``."""
        operation = envelope.operation(subject)
        with tracer.start_as_current_span(f"{operation} request", kind=SpanKind.CLIENT):
            answers = self._exchange(subject, message, [reply], wait=timeout, total=timeout)
            async with contextlib.aclosing(answers):
                async for answer in answers:
                    assert isinstance(answer, reply)
                    return answer
        raise Internal(f"{operation} ended without an answer.")

    async def request_stream(
        self, subject: str, message: Message, replies: Sequence[type[Message]], silence: float
    ) -> AsyncIterator[Message]:
        """See ``Bus.request_stream``."""
        answers = self._exchange(subject, message, replies, wait=silence, total=None)
        async with contextlib.aclosing(answers):
            async for answer in answers:
                yield answer

    async def _exchange(
        self,
        subject: str,
        message: Message,
        replies: Sequence[type[Message]],
        *,
        wait: float,
        total: float | None,
    ) -> AsyncGenerator[Message]:
        """Send one request and yield its answers; ``wait`` bounds each gap, ``total`` everything."""
        operation = envelope.operation(subject)
        if not self._client.is_connected:
            raise _disconnected(operation)
        reply = f"{self._prefix}.{answerer(subject)}.{self._own}.{next(self._numbers)}"
        arrived: asyncio.Queue[Msg | object] = asyncio.Queue()
        self._open[reply] = arrived
        deadline = None if total is None else asyncio.get_running_loop().time() + total
        try:
            await self._send(subject, message, reply, wait)
            assembly = envelope.Assembly()
            while True:
                until = asyncio.get_running_loop().time() + wait if deadline is None else deadline
                try:
                    async with asyncio.timeout_at(until):
                        answer = await arrived.get()
                except TimeoutError:
                    raise Unavailable(f"{operation} was not answered within {wait:g} s.") from None
                if not isinstance(answer, Msg):
                    raise _disconnected(operation)
                headers = answer.headers or {}
                if headers.get("Status") == _NO_RESPONDERS:
                    raise Unavailable(f"Nobody serves {operation} at the moment.")
                whole = assembly.add(headers.get(envelope.PART), answer.data)
                if whole is None:
                    continue
                if headers.get(envelope.STATUS) == envelope.ERROR:
                    raise envelope.read_error(whole)
                if headers.get(envelope.STATUS) == envelope.END:
                    return
                yield envelope.decode_one_of(replies, headers.get(envelope.TYPE), whole)
        except envelope.UndecodableError as error:
            log.error("answer_undecodable", operation=operation, error=str(error))
            raise Internal(f"The answer of {operation} could not be read.") from error
        finally:
            del self._open[reply]

    async def _send(self, subject: str, message: Message, reply: str, wait: float) -> None:
        payload = envelope.encode(message)
        headers = {
            envelope.TYPE: message.message_type,
            envelope.TIMEOUT: str(int(wait * 1000)),
            **inject(),
        }
        try:
            await self._client.publish(subject, payload, reply=reply, headers=headers)
        except errors.MaxPayloadError as error:
            raise too_large(len(payload), self._client.max_payload) from error
        except (errors.Error, OSError) as error:
            raise _disconnected(envelope.operation(subject)) from error

    async def _sort(self, msg: Msg) -> None:
        if (arrived := self._open.get(msg.subject)) is not None:
            arrived.put_nowait(msg)

    def _fail_all(self) -> None:
        for arrived in self._open.values():
            arrived.put_nowait(_LOST)


def too_large(size: int, limit: int) -> BadRequest:
    """The error for a message that the server would close the connection for."""
    return BadRequest(
        f"The message has {size} bytes; with its headers that is more than the {limit} bytes "
        "the message bus takes."
    )


def _disconnected(operation: str) -> Unavailable:
    return Unavailable(f"{operation} cannot be asked: the message bus is not reachable.")
