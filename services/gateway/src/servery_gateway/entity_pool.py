"""One served entity: its replicas with their slots, and the requests (tickets) that wait for one.

Bookkeeping only. What to do when a replica refuses, falls silent or goes is the dispatcher's decision.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from servery_common.contracts.routes import EndpointRoute, ServedEntityRoute
from servery_gateway.answer_stream import AnswerStream
from servery_gateway.load_balancing import power_of_two_choices
from servery_gateway.load_meter import LoadMeter
from servery_gateway.long_body import LongBody
from servery_gateway.queue_policy import QueuePolicy, Refusal, queue_bound
from servery_gateway.request_trace import RequestTrace
from servery_gateway.transport import Outcome


class EntityWithdrawn(Exception):
    """The served entity left the route while the request waited; another one may take it."""


class NoSpareSlot(Exception):
    """No replica took a request that does not wait."""


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


class EndpointQueue:
    """What waits at one endpoint, for all its served entities together: the bounds are theirs together, too."""

    __slots__ = ("bodies", "bound", "count", "held", "max_held")

    def __init__(self) -> None:
        self.count = 0
        self.bodies = 0
        """Bytes."""
        self.bound = 0
        """How many may wait for a slot."""
        self.held = 0
        """Of those that wait, how many came when there was no replica."""
        self.max_held = 0
        """How many may wait for a first replica, and until they have gone."""

    def update(self, endpoint: EndpointRoute) -> None:
        """Follow the route."""
        entities = endpoint.served_entities
        self.max_held = endpoint.max_held
        self.bound = queue_bound(
            endpoint.max_queued,
            sum(one.slots_per_replica * one.desired_replicas for one in entities),
            sum(replica.slots for one in entities for replica in one.replicas),
        )

    def has_room(self, length: int, max_bytes: int, *, holding: bool) -> bool:
        """Whether one more with a body of so many bytes may wait; one always may, however long it is."""
        bound = max(self.bound, self.max_held) if holding or self.held else self.bound
        return self.count < bound and (self.count == 0 or self.bodies + length <= max_bytes)


class EntityPool:
    """Slots and queue of one served entity in this gateway."""

    def __init__(
        self,
        endpoint: EndpointRoute,
        entity: ServedEntityRoute,
        shared: EndpointQueue,
        now: float,
        known: Mapping[str, Replica],
    ) -> None:
        self.replicas: dict[str, Replica] = {}
        self.queue: OrderedDict[Ticket, None] = OrderedDict()
        """Who waits, first come first. Ordered by key, so that whoever leaves is found at once."""
        self.shared = shared
        self.known_as: tuple[str, ...] = ()
        """The ids of its replicas in the dispatcher's index."""
        self.load = LoadMeter(now)
        self.policy = QueuePolicy(now, slots=0)
        self.update(endpoint, entity, known)

    def update(
        self, endpoint: EndpointRoute, entity: ServedEntityRoute, known: Mapping[str, Replica]
    ) -> None:
        """Follow the route.

        A replica that stays keeps its count of requests in flight, also one in ``known``, which was another entity's.
        """
        self.endpoint_id = endpoint.endpoint_id
        self.served_entity_id = entity.served_entity_id
        self.name = entity.name
        replicas: dict[str, Replica] = {}
        for route in entity.replicas:
            replica = (
                self.replicas.get(route.replica_id)
                or known.get(route.replica_id)
                or Replica(route.replica_id, route.slots)
            )
            replica.slots = route.slots
            replicas[replica.id] = replica
        self.replicas = replicas
        self.holds = entity.holds
        self.problem = entity.problem
        self._in_order = tuple(replicas.values())
        self.policy.slots = sum(replica.slots for replica in self._in_order)

    @property
    def holding(self) -> bool:
        """Whether requests that come now are held until a first replica is there."""
        return self.holds and not self.replicas

    @property
    def is_held(self) -> bool:
        """Whether requests wait for a first replica."""
        return bool(self.queue) and self.holding

    @property
    def cannot_start(self) -> bool:
        """Whether there is no replica, and the last try to start one failed."""
        return bool(self.problem) and not self.replicas

    def enqueue(self, ticket: Ticket, now: float, *, first: bool = False) -> None:
        """Let a request wait; ``first`` when it has waited its turn before."""
        self.queue[ticket] = None
        if first:
            self.queue.move_to_end(ticket, last=False)
        self.shared.count += 1
        ticket.held = self.holding
        self.shared.held += ticket.held
        self.shared.bodies += len(ticket.request.body)
        self.load.change(now, queued=1)

    def dequeue(self, ticket: Ticket, now: float, *, ended: int = 0) -> None:
        """A request that waited left, to a replica or altogether."""
        del self.queue[ticket]
        self.shared.count -= 1
        self.shared.held -= ticket.held
        self.shared.bodies -= len(ticket.request.body)
        self.load.change(now, queued=-1, ended=ended)

    def would_wait(self, now: float) -> bool:
        """Whether a request that came now would have to wait."""
        return bool(self.queue) or not any(replica.is_free(now) for replica in self._in_order)

    def free_slots(self, now: float) -> int:
        """How many requests could be sent now."""
        return sum(one.slots - one.in_flight for one in self._in_order if one.is_free(now))

    def refusal(
        self, now: float, *, length: int, deadline: float, max_wait: float, max_bytes: int
    ) -> Refusal | None:
        """Return why a request with a body of so many bytes may not wait, None when it may."""
        waiting, in_slots = len(self.queue), self.load.in_flight
        if not self.shared.has_room(length, max_bytes, holding=self.holding):
            cold = self.holding or self.shared.held > 0
            return self.policy.full(waiting, in_slots, cold=cold)
        return self.policy.judge(
            now, waiting=waiting, in_slots=in_slots, deadline=deadline, max_wait=max_wait
        )

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
    body: bytes | LongBody
    deadline: float
    """On the event loop's clock."""
    trace: RequestTrace
    stream_gap: float = 60.0
    """Seconds in which a streamed answer has to go on: the model makes an item, or the client takes some."""
    stream_seconds: float = 600.0
    """Longest it may go on altogether."""
    spare: bool = False
    """It may as well not be sent, and never waits (``Dispatcher.submit_spare``)."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A request in the dispatcher.

    ``outcome`` ends with an Outcome, with an AnswerStream that has begun, a ServeryError, EntityWithdrawn
    or, of a spare request, NoSpareSlot.
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
    held: bool = False
    """It waits since before there was a replica."""
    waits_on: bool = False
    """It was held, and waits once more although nothing says that a replica comes."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.outcome.done() if self.stream is None else self.stream.ended

    @property
    def queue_ms(self) -> float | None:
        """How long it waited for a replica; None when it never got one."""
        return None if self.sent_at is None else (self.sent_at - self.submitted_at) * 1000
