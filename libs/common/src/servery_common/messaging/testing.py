"""A bus in memory, for unit tests: the same verbs and guarantees, no NATS, no clock.

Messages pass through their JSON form, so a test sees what a real receiver would. ``fail`` makes it look lost.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from servery_common.contracts.message import Message
from servery_common.errors import Conflict, Internal, PermissionDenied, ServeryError, Unavailable
from servery_common.messaging import envelope
from servery_common.messaging.envelope import Event
from servery_common.messaging.port import Bus, Handler, KvChange

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)


Sender = Callable[[Any], str] | None


class InMemoryBus(Bus):
    """See ``Bus``. ``published`` and ``signals`` hold what was sent, as ``(subject, message)``;
    ``events`` holds what is stored."""

    def __init__(self) -> None:
        self.published: list[tuple[str, Message]] = []
        self.signals: list[tuple[str, Message]] = []
        self.buckets: dict[str, dict[str, Message]] = {}
        self._connected = True
        self._event_ids: set[str] = set()
        self._served: dict[str, tuple[type[Message], Callable[[Any], AsyncIterator[Message]], Sender]] = {}
        self._listeners: list[tuple[str, type[Message], Callable[[Any], Awaitable[None]], Sender]] = []
        self.events: list[Event] = []
        self._stored_hint = asyncio.Event()
        self._revision = 0
        self._revisions: dict[tuple[str, str], int] = {}
        self._watchers: dict[str, list[asyncio.Queue[KvChange[Any]]]] = {}
        self._on_disconnect: list[Callable[[], None]] = []
        self._on_reconnect: list[Callable[[], None]] = []

    def fail(self, failing: bool = True) -> None:
        """Lose the connection, or bring it back."""
        if self._connected == (not failing):
            return
        self._connected = not failing
        for callback in self._on_disconnect if failing else self._on_reconnect:
            callback()

    @property
    def connected(self) -> bool:
        return self._connected

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        self._on_disconnect.append(callback)

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        self._on_reconnect.append(callback)

    async def request(self, subject: str, message: Message, reply: type[R], *, timeout: float) -> R:
        try:
            async with asyncio.timeout(timeout):
                async for answer in self._ask(subject, message, [reply]):
                    assert isinstance(answer, reply)
                    return answer
        except TimeoutError:
            raise Unavailable(f"{subject} was not answered within {timeout:g} s.") from None
        raise Internal(f"{subject} ended without an answer.")

    async def request_stream(
        self, subject: str, message: Message, replies: Sequence[type[Message]], *, silence: float
    ) -> AsyncIterator[Message]:
        answers = self._ask(subject, message, replies)
        while True:
            try:
                async with asyncio.timeout(silence):
                    answer = await anext(answers, None)
            except TimeoutError:
                raise Unavailable(f"{subject} was silent for {silence:g} s.") from None
            if answer is None:
                return
            yield answer

    async def serve(
        self,
        subject: str,
        request: type[M],
        handler: Callable[[M], Awaitable[Message]],
        *,
        queue: str | None = None,
        sender: Callable[[M], str] | None = None,
    ) -> None:
        async def once(message: M) -> AsyncIterator[Message]:
            yield await handler(message)

        self._served[subject] = (request, once, sender)

    async def serve_stream(
        self,
        subject: str,
        request: type[M],
        handler: Callable[[M], AsyncIterator[Message]],
        *,
        queue: str | None = None,
    ) -> None:
        self._served[subject] = (request, handler, None)

    async def signal(self, subject: str, message: Message) -> None:
        if not self._connected:
            return
        self.signals.append((subject, message))
        for pattern, cls, handler, sender in list(self._listeners):
            if matches(pattern, subject):
                received = envelope.decode(cls, envelope.encode(message))
                if sender is None or sender(received) == subject.rpartition(".")[2]:
                    await handler(received)

    async def on_signal(
        self,
        subject: str,
        message: type[M],
        handler: Callable[[M], Awaitable[None]],
        *,
        sender: Callable[[M], str] | None = None,
        queue: str = "",
    ) -> None:
        self._listeners.append((subject, message, handler, sender))

    async def publish(self, subject: str, message: Message, *, event_id: str) -> None:
        repeated = event_id in self._event_ids
        await self.publish_event(envelope.make_event(subject, message, event_id))
        if not repeated:
            self.published.append((subject, message))

    async def publish_event(self, event: Event) -> None:
        self._check()
        if event.id in self._event_ids:
            return
        self._event_ids.add(event.id)
        self.events.append(event)
        self._stored_hint.set()

    async def consume(
        self,
        stream: str,
        durable: str,
        subject_filter: str,
        handlers: Mapping[type[Message], Handler],
    ) -> None:
        position = 0
        while True:
            self._stored_hint.clear()
            for event in self.events[position:]:
                position += 1
                if matches(subject_filter, event.subject):
                    message = envelope.decode_one_of(list(handlers), event.type, event.body)
                    await handlers[type(message)](message)
            await self._stored_hint.wait()

    async def kv_put(self, bucket: str, key: str, message: Message, *, expected: int | None = None) -> int:
        self._check()
        self._new_revision(bucket, key, expected)
        self.buckets.setdefault(bucket, {})[key] = message
        self._changed(bucket, KvChange(kind="put", key=key, value=message, revision=self._revision))
        return self._revision

    async def kv_delete(self, bucket: str, key: str, *, expected: int | None = None) -> None:
        self._check()
        self._new_revision(bucket, key, expected)
        if self.buckets.setdefault(bucket, {}).pop(key, None) is not None:
            self._changed(bucket, KvChange(kind="delete", key=key, revision=self._revision))

    async def kv_keys(self, bucket: str) -> list[str]:
        self._check()
        return list(self.buckets.get(bucket, {}))

    async def kv_watch(self, bucket: str, message: type[M]) -> AsyncIterator[KvChange[M]]:
        changes: asyncio.Queue[KvChange[M]] = asyncio.Queue()
        for key, value in self.buckets.get(bucket, {}).items():
            copy = envelope.decode(message, envelope.encode(value))
            changes.put_nowait(KvChange(kind="put", key=key, value=copy, revision=self._revision))
        changes.put_nowait(KvChange(kind="caught_up", incarnation="memory"))
        watchers = self._watchers.setdefault(bucket, [])
        watchers.append(changes)
        try:
            while True:
                yield await changes.get()
        finally:
            watchers.remove(changes)

    def _new_revision(self, bucket: str, key: str, expected: int | None) -> None:
        if expected is not None and expected != self._revisions.get((bucket, key), 0):
            raise Conflict(f"The key {key} of the bucket {bucket} was changed meanwhile.")
        self._revision += 1
        self._revisions[bucket, key] = self._revision

    def _changed(self, bucket: str, change: KvChange[Any]) -> None:
        for changes in self._watchers.get(bucket, []):
            changes.put_nowait(change)

    async def _ask(
        self, subject: str, message: Message, replies: Sequence[type[Message]]
    ) -> AsyncIterator[Message]:
        self._check()
        served = next((one for pattern, one in self._served.items() if matches(pattern, subject)), None)
        if served is None:
            raise Unavailable(f"Nobody serves {subject} at the moment.")
        cls, handler, sender = served
        received = envelope.decode(cls, envelope.encode(message))
        if sender is not None and sender(received) != subject.rpartition(".")[2]:
            raise PermissionDenied("The request is in the name of another one than its sender.")
        try:
            async for answer in handler(received):
                yield envelope.decode_one_of(replies, answer.message_type, envelope.encode(answer))
        except ServeryError as error:
            raise ServeryError.from_wire(error.to_wire()) from error
        except Exception as error:
            raise Internal(f"{subject} failed unexpectedly.") from error

    def _check(self) -> None:
        if not self._connected:
            raise Unavailable("The message bus is not reachable.")


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject matches a pattern with ``*`` and a final ``>``."""
    wanted, tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(tokens) <= len(wanted):
            return False
        tokens = tokens[: len(wanted)]
    return len(wanted) == len(tokens) and all(
        one in ("*", other) for one, other in zip(wanted, tokens, strict=True)
    )
