"""One served entity: its replicas with their slots, and the requests (tickets) that wait for one.

Bookkeeping only. What to do when a replica refuses, falls silent or goes is the dispatcher's decision.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from servery_common.contracts.routes import EndpointRoute, ServedEntityRoute
from servery_gateway.answer_stream import AnswerStream
from servery_gateway.load_balancing import power_of_two_choices
from servery_gateway.load_meter import LoadMeter
from servery_gateway.request_trace import RequestTrace
from servery_gateway.transport import Outcome


class EntityWithdrawn(Exception):
    """The served entity left the route while the request waited; another one may take it."""


class CallerLeft(Exception):
    """The client went away; nobody waits for the outcome."""


class Replica:
    """One replica as this gateway uses it."""

    __slots__ = ("gone", "id", "in_flight", "rests_until", "slots")

    def __init__(self, id: str, slots: int) -> None:
        self.id = id
        self.slots = slots
        self.in_flight = 0
        self.rests_until = 0.0
        """Gets nothing before this time: it refused, or was silent."""
        self.gone = False
        """Its agent does not listen. Believed until a request to it is accepted."""

    def is_free(self, now: float) -> bool:
        """Whether it may be sent a request."""
        return self.in_flight < self.slots and self.rests_until <= now


class EntityPool:
    """Slots and queue of one served entity in this gateway."""

    def __init__(self, endpoint: EndpointRoute, entity: ServedEntityRoute, now: float) -> None:
        self.replicas: dict[str, Replica] = {}
        self.queue: OrderedDict[Ticket, None] = OrderedDict()
        """Who waits, first come first. Ordered by key, so that whoever leaves is found at once."""
        self.load = LoadMeter(now)
        self.of_endpoint: Sequence[EntityPool] = (self,)
        """All pools of the endpoint, this one among them: the bound of the queue is theirs together."""
        self.update(endpoint, entity)

    def update(self, endpoint: EndpointRoute, entity: ServedEntityRoute) -> None:
        """Follow the route. A replica that stays keeps its count of requests in flight."""
        self.endpoint_id = endpoint.endpoint_id
        self.served_entity_id = entity.served_entity_id
        self.name = entity.name
        self.max_queued = endpoint.max_queued
        replicas: dict[str, Replica] = {}
        for route in entity.replicas:
            replica = self.replicas.get(route.replica_id) or Replica(route.replica_id, route.slots)
            replica.slots = route.slots
            replicas[replica.id] = replica
        self.replicas = replicas
        self._in_order = tuple(replicas.values())

    @property
    def is_full(self) -> bool:
        """Whether the endpoint's queue takes nothing more."""
        return sum(len(pool.queue) for pool in self.of_endpoint) >= self.max_queued

    def pick(self, now: float, random: Callable[[], float]) -> Replica | None:
        """Return a replica with a free slot, or None."""
        replicas = self._in_order
        if len(replicas) == 1:
            return replicas[0] if replicas[0].is_free(now) else None
        return power_of_two_choices(replicas, now, random)

    def has_replica(self) -> bool:
        """Whether there is anybody to wait for."""
        return any(not replica.gone for replica in self.replicas.values())

    def has_other_than(self, silent: Replica) -> bool:
        """Whether somebody else could do the work of a silent replica."""
        return any(replica is not silent and not replica.gone for replica in self.replicas.values())


@dataclass(slots=True, eq=False)
class ScoringRequest:
    """A request past admission."""

    served_entity_id: str
    content_type: str
    request_id: str
    body: bytes
    deadline: float
    """On the event loop's clock."""
    trace: RequestTrace
    stream_gap: float = 60.0
    """Seconds in which a streamed answer has to go on: the model makes an item, or the client takes some."""
    stream_seconds: float = 600.0
    """Longest it may go on altogether."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A request in the dispatcher.

    ``outcome`` ends with an Outcome, with an AnswerStream that has begun, a ServeryError or EntityWithdrawn.
    """

    request: ScoringRequest
    pool: EntityPool
    outcome: asyncio.Future[Outcome | AnswerStream]
    submitted_at: float
    """On the event loop's clock, as all times here."""
    expires_at: float
    """The request's deadline; of a streamed answer, when the next piece has to be there."""
    sent_at: float | None = None
    """When it left for a replica last; None as long as it never did."""
    stream: AnswerStream | None = None
    stream_ends_at: float = 0.0
    """A streamed answer that goes on longer is broken off."""
    deadline: set[Ticket] | None = None
    """Where its time limits stand in a ``TimerWheel``; likewise ``wait`` and ``accept``."""
    wait: set[Ticket] | None = None
    accept: set[Ticket] | None = None
    attempt: int = 0
    """Id of the attempt under way; 0 when there is none."""
    replica: Replica | None = None
    accepted_at: float | None = None
    silences: int = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.outcome.done() if self.stream is None else self.stream.ended

    @property
    def queue_ms(self) -> float | None:
        """How long it waited for a replica; None when it never got one."""
        return None if self.sent_at is None else (self.sent_at - self.submitted_at) * 1000
