"""The way to the replicas, as the dispatcher sees it. ``nats_transport`` is the only one used in production.

Nothing here blocks: what is handed over leaves in the same turn of the event loop, answers come back through
the listener. Everything sent to one replica arrives in order or not at all.
"""

from typing import NamedTuple, Protocol

from servery_gateway.long_body import LongBody


class ReplicaRequest(NamedTuple):
    """One attempt to have one request answered by one replica."""

    id: int
    """Names the attempt, never used twice: a late answer to an attempt that was given up finds nobody."""
    content_type: str
    request_id: str
    body: bytes | LongBody
    ttl_ms: int
    """Milliseconds the caller still waits. Relative, so that clocks need not agree."""
    sent_at_ms: int
    """Epoch milliseconds of the gateway's clock: lets an agent that was frozen see that a request is old."""
    stream_ttl_ms: int
    """Longest the answer may go on when it is streamed."""
    traceparent: str | None = None


class Outcome(NamedTuple):
    """What a replica made of a request."""

    status: int
    content_type: str
    body: bytes
    lost: bool = False
    """The model process died while it worked on the request."""
    predict_ms: float | None = None
    """How long the model's ``predict`` ran; None when it did not, or the replica does not say."""


class TransportListener(Protocol):
    """What a transport reports. Ids it was not given, or was told to cancel, are never reported."""

    def on_accept(self, id: int) -> None:
        """The replica took the request."""
        ...

    def on_refuse(self, id: int, reason: str) -> None:
        """The replica did not and will not run it: ``busy``, ``draining``, ``expired`` or ``unknown``."""
        ...

    def on_progress(self, id: int) -> None:
        """The replica takes in a long body."""
        ...

    def on_result(self, id: int, outcome: Outcome) -> None:
        """The replica answered."""
        ...

    def on_stream(self, id: int, status: int, content_type: str) -> None:
        """The replica begins to stream its answer."""
        ...

    def on_piece(self, id: int, piece: bytes) -> None:
        """More of a streamed answer."""
        ...

    def on_stream_end(self, id: int, failure: Outcome | None, predict_ms: float | None) -> None:
        """A streamed answer is whole, or broke off with ``failure``; ``predict_ms`` as in Outcome."""
        ...

    def on_gone(self, replica_id: str) -> None:
        """Nobody listens for this replica any more: its agent ended."""
        ...

    def on_disconnect(self) -> None:
        """All that was under way is lost; nothing more will be reported about it."""
        ...


class ReplicaTransport(Protocol):
    """Sends requests to replicas."""

    @property
    def connected(self) -> bool:
        """Whether sending makes sense now."""
        ...

    @property
    def congested(self) -> bool:
        """Whether more than usual waits to be sent: what can be left out should be."""
        ...

    def send(self, replica_id: str, request: ReplicaRequest) -> None:
        """Hand a request over. When the connection is lost the listener hears ``on_disconnect``."""
        ...

    def cancel(self, replica_id: str, id: int) -> None:
        """Tell the replica that nobody waits any more, after the request itself; forget the id."""
        ...

    def acknowledge(self, replica_id: str, id: int, count: int) -> None:
        """Tell the replica that the client took ``count`` bytes of a streamed answer; 0: that it is still there."""
        ...

    def probe(self, replica_id: str) -> None:
        """Find out whether the replica's agent still listens; if not, ``on_gone`` follows."""
        ...

    def is_waiting(self, replica_id: str, id: int) -> bool:
        """Whether nothing of this request has left yet: it has a long body, and others are before it."""
        ...

    async def settle(self) -> None:
        """Return when all that had reached the server before the call has been reported (or after 1 s)."""
        ...
