"""What a service may ask of the message bus: the port, without NATS.

Three guarantees, three kinds of verbs:

* ``request``/``serve``: an answer or an error, in time; nothing is stored.
* ``signal``/``on_signal``: best effort, lost when nobody listens; the sender repeats it soon.
* ``publish``/``consume``: stored before ``publish`` returns, delivered at least once; handlers are
  idempotent.

And a key-value store of last values, ``kv_…``, that a process can follow.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from servery_common.contracts.message import Message
from servery_common.messaging.envelope import Event

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)

Handler = Callable[[Any], Awaitable[None]]
"""Takes one message of the type it was registered for."""


@dataclass(frozen=True)
class KvChange(Generic[M]):
    """One step of following a bucket.

    ``put`` carries the value. ``delete`` means that somebody deleted the key. ``caught_up`` comes once all
    present values were delivered: at the start and again after each interruption, with ``incarnation``,
    which changes when the bucket was lost and made anew, and ``missing``: keys that vanished with the old
    incarnation. Nobody deleted those; whoever owns the bucket will put them again, so go on using them
    until then.
    """

    kind: Literal["put", "delete", "caught_up"]
    key: str = ""
    value: M | None = None
    revision: int = 0
    incarnation: str = ""
    missing: frozenset[str] = frozenset()

    @property
    def caught_up(self) -> bool:
        return self.kind == "caught_up"

    @property
    def deleted(self) -> bool:
        return self.kind == "delete"


class Signals(Protocol):
    """What it takes to tell, and no more."""

    async def signal(self, subject: str, message: Message) -> None:
        """Tell whoever listens. Never raises because of the connection."""
        ...


class Bus(Signals, Protocol):
    """The message bus as services see it."""

    @property
    def connected(self) -> bool:
        """Whether messages go out right now."""
        ...

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Call back each time the connection is lost; must not block or raise."""
        ...

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call back each time the connection is back; must not block or raise."""
        ...

    async def request(self, subject: str, message: Message, reply: type[R], *, timeout: float) -> R:
        """Ask and return the answer.

        Raises the ServeryError the other side raised, or Unavailable: at once when nobody serves the
        subject or the connection is lost, and after ``timeout`` seconds without an answer.
        """
        ...

    def request_stream(
        self, subject: str, message: Message, replies: Sequence[type[Message]], *, silence: float
    ) -> AsyncIterator[Message]:
        """Ask once and yield answers until the other side is done.

        Raises like ``request``; here ``silence`` is the longest gap between two answers, in seconds.
        """
        ...

    async def serve(
        self,
        subject: str,
        request: type[M],
        handler: Callable[[M], Awaitable[Message]],
        *,
        queue: str | None = None,
        sender: Callable[[M], str] | None = None,
    ) -> None:
        """Answer requests from now on; members of a ``queue`` share them.

        Each request runs in its own task, within the caller's deadline before it starts. A ServeryError
        travels to the caller as it is; anything else is logged and becomes an INTERNAL_ERROR.

        ``sender`` is for callers that nobody trusts. It returns who a request says it is from. That has to be the last
        token of its subject, which is what credentials allow, or it is refused with PERMISSION_DENIED; and it is
        answered at that sender's own inbox or not at all, as whoever asks chooses where the answer goes.
        """
        ...

    async def serve_stream(
        self,
        subject: str,
        request: type[M],
        handler: Callable[[M], AsyncIterator[Message]],
        *,
        queue: str | None = None,
    ) -> None:
        """Answer each request with everything ``handler`` yields."""
        ...

    async def on_signal(
        self,
        subject: str,
        message: type[M],
        handler: Callable[[M], Awaitable[None]],
        *,
        sender: Callable[[M], str] | None = None,
        queue: str = "",
    ) -> None:
        """Handle signals from now on, one after the other. A failing handler is logged.

        ``sender`` returns who a message says it is from. That has to be the last token of its subject, which is what
        credentials allow; any other message is dropped. Of the members of a ``queue`` one hears each.
        """
        ...

    async def publish(self, subject: str, message: Message, *, event_id: str) -> None:
        """Store a job or an event; returns when it is stored.

        The same ``event_id`` again within two minutes is stored once. Raises Unavailable when it may not be
        stored.
        """
        ...

    async def publish_event(self, event: Event) -> None:
        """Like ``publish``, for an event that was encoded before: the outbox's way in."""
        ...

    async def consume(
        self,
        stream: str,
        durable: str,
        subject_filter: str,
        handlers: Mapping[type[Message], Handler],
    ) -> None:
        """Handle jobs or events for ever, one after the other; members of a durable share them.

        A handler that raises gets the same message again later, with growing delays. What cannot be read,
        nobody handles, or failed too often is logged and dropped.
        """
        ...

    async def kv_put(self, bucket: str, key: str, message: Message, *, expected: int | None = None) -> int:
        """Store the last value of a key; returns its revision. Raises Unavailable when it may not be stored.

        With ``expected``, only if the key's last revision is that one (0: it never had a value); else raises Conflict.
        """
        ...

    async def kv_delete(self, bucket: str, key: str, *, expected: int | None = None) -> None:
        """Delete a key; deleting an unknown one is fine. Raises Unavailable.

        With ``expected``, only if the key's last revision is that one; else raises Conflict.
        """
        ...

    async def kv_keys(self, bucket: str) -> list[str]:
        """Return the keys that have a value. Raises Unavailable."""
        ...

    def kv_watch(self, bucket: str, message: type[M]) -> AsyncIterator[KvChange[M]]:
        """Yield all values, a ``caught_up``, then every change, for ever and across interruptions."""
        ...
