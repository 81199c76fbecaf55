"""Bring each admitted request to a replica, and its answer back.

One request is one ``Ticket``: it waits in its served entity's queue or is under way to one replica. All
transitions happen in callbacks on the event loop, none of which waits, so there is nothing to lock.

Why accepted work is never run twice
------------------------------------
A request is sent again only while no ACCEPT for it has been read, and in these cases:

* the replica said REFUSE: it promises that it has not run the request and will not;
* nobody listens on the replica's subject: the message reached nobody;
* no ACCEPT for ``accept_timeout``. Before acting on it the dispatcher lets the transport *settle*: whatever had
  reached the server is read first, so an ACCEPT that only waited for this gateway's own busy event loop counts.
  Then CANCEL is sent, on the same connection and subject as the REQUEST, so the agent reads it right behind. An agent
  refuses a request that it reads later than ``frames.ACCEPT_WITHIN_MS`` after the head's ``at``, which is sooner than
  the timeout here; so one that was frozen, or is slow to read, drops the request.

After ACCEPT a request ends with its result, or as lost (503), or at its deadline (504); never with another attempt.
Each attempt has its own id and an id that was given up is forgotten, so a late answer finds nobody.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import structlog

from servery_common.contracts.routes import EndpointRoute
from servery_common.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from servery_common.timer_wheel import TimerWheel
from servery_gateway import dispatch_limits, messages
from servery_gateway.activity import Activity
from servery_gateway.answer_stream import AnswerStream, BrokenOff
from servery_gateway.answers import error_message
from servery_gateway.dispatch_limits import DispatchLimits
from servery_gateway.entity_pool import (
    CallerLeft,
    EntityPool,
    EntityWithdrawn,
    NoSpareSlot,
    Replica,
    ScoringRequest,
    Ticket,
)
from servery_gateway.entity_pools import EntityPools
from servery_gateway.routing_table import Change
from servery_gateway.transport import Outcome, ReplicaRequest, ReplicaTransport
from servery_gateway.waking import Waker

IDLE_ROUNDS = 60
"""The load of an idle served entity is reported in one report of so many."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Dispatcher:
    """Owns the queues and the slots. Implements ``TransportListener``."""

    transport: ReplicaTransport
    limits: DispatchLimits
    random: Callable[[], float]
    activity: Activity[EntityPool] = field(default_factory=lambda: Activity(IDLE_ROUNDS))
    """Which served entities have something to do, for who reports their load."""
    waker: Waker = field(default_factory=Waker)
    """Which served entities at zero are asked for."""
    _attempts: dict[int, Ticket] = field(default_factory=dict[int, Ticket])
    _last_attempt: int = 0
    _background: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    _entities: EntityPools = field(init=False)
    _pools: dict[str, EntityPool] = field(init=False)
    """Those of ``_entities``, by served entity id: at hand, as every request looks there."""
    _pool_of: dict[str, EntityPool] = field(init=False)
    """And by replica id."""
    _deadlines: TimerWheel[Ticket] = field(init=False)
    _accepts: TimerWheel[Ticket] = field(init=False)
    _waits: TimerWheel[Ticket] = field(init=False)

    def __post_init__(self) -> None:
        self._entities = EntityPools(self.activity)
        self._pools, self._pool_of = self._entities.by_entity, self._entities.by_replica
        self._deadlines = TimerWheel(self._loop, dispatch_limits.DEADLINE_GRANULARITY, self._expire)
        self._accepts = TimerWheel(self._loop, dispatch_limits.ACCEPT_GRANULARITY, self._not_accepted)
        self._waits = TimerWheel(self._loop, dispatch_limits.WAIT_GRANULARITY, self._look_after_waiting)

    # What the gateway asks for

    def follow(self, changes: Sequence[Change[EndpointRoute]]) -> None:
        """Follow changes of routes: new replicas take waiting requests at once."""
        now = self._loop.time()
        for _, before, after in changes:
            routed, withdrawn = self._entities.follow(before, after, now)
            for pool in routed:
                self._look_after(pool)
            for pool in withdrawn:
                for ticket in tuple(pool.queue):
                    self._end(ticket, EntityWithdrawn())

    def require_room(self, served_entity_id: str, deadline: float, length: int) -> None:
        """Raise ResourceExhausted if a request that came now would be refused: its body need not be read.

        ``length`` is the body's as it was declared, 0 when it was not.
        """
        pool, now = self._pools.get(served_entity_id), self._loop.time()
        if pool is not None and pool.would_wait(now):
            _require_hope(pool)
            try:
                self._require_room(pool, now, deadline, length)
            except ResourceExhausted:
                if not pool.holding:
                    pool.policy.arrived(now)
                raise

    def submit(self, request: ScoringRequest) -> Ticket:
        """Take a request in. Raises Unavailable, ResourceExhausted (queue full) or EntityWithdrawn.

        One for a served entity at zero is held, and wakes it.
        """
        pool = self._pools.get(request.served_entity_id)
        if pool is None:
            raise EntityWithdrawn
        if not self.transport.connected:
            raise Unavailable(messages.BUS_LOST, retry_after=1, reason="bus_lost")
        now = self._loop.time()
        if not pool.holding:  # a cold start is no overload
            pool.policy.arrived(now)
        self.activity.active.add(pool)
        ticket = Ticket(request, pool, self._loop.create_future(), now, request.deadline)
        if pool.queue or not self._place(ticket, now):
            _require_hope(pool)
            self._require_room(pool, now, request.deadline, len(request.body))
            self._wait(ticket, now)
        ticket.deadline = self._deadlines.add(ticket, ticket.expires_at)
        return ticket

    def submit_spare(self, request: ScoringRequest, *, leave_free: int) -> Ticket | None:
        """Send a request that may as well not be sent; None when it was not.

        It takes a slot that nobody waits for, only if ``leave_free`` others stay free, and no part in what is
        estimated of the queue. One for a served entity at zero asks for a replica.
        """
        pool, now = self._pools.get(request.served_entity_id), self._loop.time()
        if pool is None or pool.queue or not self.transport.connected or self.transport.congested:
            return None
        if pool.holding and not pool.cannot_start:
            self.waker.ask(pool, now)
        if pool.free_slots(now) <= leave_free:
            return None
        self.activity.active.add(pool)
        ticket = Ticket(request, pool, self._loop.create_future(), now, request.deadline)
        if not self._place(ticket, now):
            return None
        ticket.deadline = self._deadlines.add(ticket, ticket.expires_at)
        return ticket

    def abandon(self, ticket: Ticket) -> None:
        """The caller left: stop the work and free the slot. Nothing happens when it has ended."""
        if not ticket.is_over:
            self._withdraw(ticket)
            self._end(ticket, CallerLeft())

    def pool(self, served_entity_id: str) -> EntityPool | None:
        """Return the served entity's slots and queue, None when it is not routed to."""
        return self._pools.get(served_entity_id)

    def pools(self) -> Iterable[EntityPool]:
        """All served entities this gateway routes to."""
        return self._pools.values()

    @property
    def unfinished(self) -> int:
        """Requests waiting or under way."""
        return len(self._attempts) + sum(len(pool.queue) for pool in self._pools.values())

    def probe(self) -> None:
        """Ask replicas that are at work for long whether they are there, and say which streams are still wanted."""
        long_ago = self._loop.time() - dispatch_limits.PROBE_AFTER
        silent: set[str] = set()
        for ticket in self._attempts.values():
            if ticket.replica and ticket.stream is not None:
                self.transport.acknowledge(ticket.replica.id, ticket.attempt, 0)
            elif ticket.replica and ticket.accepted_at is not None and ticket.accepted_at < long_ago:
                silent.add(ticket.replica.id)
        for replica_id in silent:
            self.transport.probe(replica_id)

    # What the transport reports

    def on_accept(self, id: int) -> None:
        """Implement TransportListener."""
        ticket = self._attempts.get(id)
        if ticket is None or ticket.replica is None or ticket.accepted_at is not None:
            return
        ticket.accepted_at = self._loop.time()
        ticket.replica.gone = False
        _take_back(ticket, ticket.accept)

    def on_refuse(self, id: int, reason: str) -> None:
        """Implement TransportListener."""
        ticket = self._attempts.get(id)
        if ticket is None or ticket.replica is None:
            return
        if ticket.accepted_at is not None:
            # Not allowed by the protocol. Running it elsewhere would be the one unforgivable answer.
            self._end(ticket, Unavailable(messages.REPLICA_DIED, retry_after=1, reason="replica_died"))
        elif reason == "expired" and ticket.request.deadline <= self._loop.time():
            self._end(ticket, DeadlineExceeded(messages.TIMED_OUT))
        else:
            self._again(ticket, rest=dispatch_limits.REFUSED_REST.get(reason, dispatch_limits.BUSY_REST))

    def on_progress(self, id: int) -> None:
        """Implement TransportListener: a long body takes longer than the accept timeout to arrive."""
        ticket = self._attempts.get(id)
        if ticket is not None and ticket.accepted_at is None:
            self._expect_accept(ticket)

    def on_result(self, id: int, outcome: Outcome) -> None:
        """Implement TransportListener."""
        ticket = self._attempts.get(id)
        if ticket is None:
            return
        if ticket.replica is not None:
            ticket.replica.rests_until = 0.0
        self._end(ticket, _lost(outcome) if outcome.lost else outcome)

    def on_stream(self, id: int, status: int, content_type: str) -> None:
        """Implement TransportListener: hand the answer out; the ticket keeps its slot until the answer ends."""
        self.on_accept(id)
        ticket = self._attempts.get(id)
        if ticket is None or ticket.replica is None or ticket.stream is not None:
            return
        ticket.replica.rests_until = 0.0
        replica_id = ticket.replica.id
        ticket.request.body = b""  # Not sent again, and an answer may take its time.

        def taken(count: int) -> None:
            if count:
                self.transport.acknowledge(replica_id, id, count)
            self._expect_more(ticket)

        ticket.stream = AnswerStream(status, content_type, taken)
        ticket.stream_ends_at = self._loop.time() + ticket.request.stream_seconds
        self._expect_more(ticket)
        _take_back(ticket, ticket.deadline)
        ticket.deadline = self._deadlines.add(ticket, ticket.expires_at)
        ticket.outcome.set_result(ticket.stream)

    def on_piece(self, id: int, piece: bytes) -> None:
        """Implement TransportListener."""
        ticket = self._attempts.get(id)
        if ticket is not None and ticket.stream is not None:
            ticket.stream.put(piece)
            self._expect_more(ticket)

    def on_stream_end(self, id: int, failure: Outcome | None, predict_ms: float | None) -> None:
        """Implement TransportListener."""
        ticket = self._attempts.get(id)
        if ticket is None or ticket.stream is None:
            return
        ticket.stream.predict_ms = predict_ms
        if failure is None:
            self._end(ticket, None)
        else:
            self._end(ticket, _lost(failure) if failure.lost else BrokenOff(failure))

    def on_gone(self, replica_id: str) -> None:
        """Implement TransportListener."""
        hit = [
            ticket for ticket in self._attempts.values() if ticket.replica and ticket.replica.id == replica_id
        ]
        log.warning("replica_gone", replica_id=replica_id, requests=len(hit))
        pool = self._pool_of.get(replica_id)
        replica = None if pool is None else pool.replicas.get(replica_id)
        if pool is not None and replica is not None:
            replica.gone = True
            self._rest(pool, replica, dispatch_limits.GONE_REST)
        for ticket in hit:
            # It may be there again in a moment: what is left of the body is not for it, and its work is for nobody.
            self._withdraw(ticket)
            if ticket.accepted_at is not None:
                self._end(ticket, Unavailable(messages.REPLICA_DIED, retry_after=1, reason="replica_died"))
            else:
                self._again(ticket, rest=dispatch_limits.GONE_REST)

    def on_disconnect(self) -> None:
        """Implement TransportListener: fail everything now rather than each at its deadline."""
        lost = list(self._attempts.values())
        for pool in self._pools.values():
            lost.extend(pool.queue)
        for ticket in lost:
            self._end(ticket, Unavailable(messages.BUS_LOST, retry_after=1, reason="bus_lost"), drain=False)

    # Transitions of a ticket

    def _look_after(self, pool: EntityPool) -> None:
        """Do for what waits in a pool what its route says now."""
        if not pool.queue:
            return
        if pool.cannot_start:
            for ticket in tuple(pool.queue):
                self._end(ticket, _cannot_start(pool))
        elif pool.holding:
            self.waker.need(pool)
        else:
            self._drain(pool)

    def _require_room(self, pool: EntityPool, now: float, deadline: float, length: int) -> None:
        refusal = pool.refusal(
            now,
            length=length,
            deadline=deadline,
            max_wait=self.limits.max_queue_wait,
            max_bytes=self.limits.max_queued_bytes,
        )
        if refusal is not None:
            raise ResourceExhausted(
                messages.QUEUE_FULL, retry_after=refusal.retry_after, reason=refusal.reason
            )

    def _place(self, ticket: Ticket, now: float) -> bool:
        """Send the request to a replica with a free slot, if there is one."""
        pool, request = ticket.pool, ticket.request
        replica = pool.pick(now, self.random)
        if replica is None:
            return False
        self._last_attempt += 1
        ticket.attempt = self._last_attempt
        ticket.replica = replica
        ticket.sent_at = now
        ticket.accepted_at = None
        replica.in_flight += 1
        pool.load.change(now, in_flight=1)
        self._attempts[ticket.attempt] = ticket
        ticket.accept = self._accepts.add(ticket, now + self.limits.accept_timeout)
        self.transport.send(
            replica.id,
            ReplicaRequest(
                id=ticket.attempt,
                content_type=request.content_type,
                request_id=request.request_id,
                body=request.body,
                ttl_ms=max(1, int((request.deadline - now) * 1000)),
                sent_at_ms=time.time_ns() // 1_000_000,
                stream_ttl_ms=int(request.stream_seconds * 1000),
                traceparent=request.trace.sent(replica.id),
            ),
        )
        return True

    def _wait(self, ticket: Ticket, now: float, *, first: bool = False) -> None:
        """Put the request into the queue; ``first`` when it has waited its turn before."""
        ticket.pool.enqueue(ticket, now, first=first)
        if ticket.held:
            self.waker.need(ticket.pool)
        if ticket.wait is None:
            ticket.wait = self._waits.add(ticket, now + self.limits.replica_wait)

    def _look_after_waiting(self, ticket: Ticket) -> None:
        ticket.wait = None
        if ticket.outcome.done() or ticket.attempt:
            return
        hope = ticket.pool.has_replica() or ticket.pool.holding
        if hope or (ticket.held and not ticket.waits_on):
            # One try to start has ended and the next has not begun, or the reason is on its way: that is told soon.
            ticket.waits_on = not hope
            ticket.wait = self._waits.add(ticket, self._loop.time() + self.limits.replica_wait)
        else:
            self._end(ticket, Unavailable(messages.NO_REPLICA, retry_after=1, reason="no_replica"))

    def _drain(self, pool: EntityPool) -> None:
        """Send waiting requests, first come first served, as long as there are free slots."""
        now = self._loop.time()
        while pool.queue:
            ticket = next(iter(pool.queue))
            if not self._place(ticket, now):
                return
            pool.dequeue(ticket, now)

    def _expect_accept(self, ticket: Ticket) -> None:
        _take_back(ticket, ticket.accept)
        ticket.accept = self._accepts.add(ticket, self._loop.time() + self.limits.accept_timeout)

    def _not_accepted(self, ticket: Ticket) -> None:
        attempt = ticket.attempt
        task = self._loop.create_task(
            self._give_up_on_replica(ticket, attempt), name=f"not-accepted-{attempt}"
        )
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _give_up_on_replica(self, ticket: Ticket, attempt: int) -> None:
        await self.transport.settle()
        replica = ticket.replica
        if ticket.attempt != attempt or ticket.accepted_at is not None or replica is None:
            return
        resting = replica.rests_until > self._loop.time()
        if not resting and self.transport.is_waiting(replica.id, attempt):
            self._expect_accept(ticket)  # The replica cannot know of it yet.
            return
        in_route = ticket.pool.replicas.get(replica.id) is replica
        if in_route and not ticket.pool.has_other_than(replica):
            # Nobody else could do it: the request is best off where it is, if there is anybody at all.
            self.transport.probe(replica.id)
            self._expect_accept(ticket)
            return
        ticket.silences += 1
        log.warning("request_not_accepted", replica_id=replica.id, request_id=ticket.request.request_id)
        self._withdraw(ticket)
        if ticket.silences >= dispatch_limits.MAX_SILENCES:
            self._rest(ticket.pool, replica, dispatch_limits.SILENT_REST)
            self._end(ticket, Unavailable(messages.NOT_ACCEPTED, retry_after=1, reason="not_accepted"))
        else:
            self._again(ticket, rest=dispatch_limits.SILENT_REST)

    def _again(self, ticket: Ticket, *, rest: float) -> None:
        """An attempt came to nothing: let its replica rest, and bring the request to another one."""
        replica, now = ticket.replica, self._loop.time()
        self._free_slot(ticket, now)
        if replica is not None:
            self._rest(ticket.pool, replica, rest)
        if ticket.request.spare:
            self._end(ticket, NoSpareSlot())
            return
        if ticket.pool is not self._pools.get(ticket.request.served_entity_id):
            self._end(ticket, EntityWithdrawn())
            return
        self._wait(ticket, now, first=True)
        self._drain(ticket.pool)

    def _rest(self, pool: EntityPool, replica: Replica, seconds: float) -> None:
        replica.rests_until = self._loop.time() + seconds
        self._loop.call_later(seconds + 0.001, self._drain, pool)

    def _withdraw(self, ticket: Ticket) -> None:
        if ticket.attempt and ticket.replica is not None:
            self.transport.cancel(ticket.replica.id, ticket.attempt)

    def _expect_more(self, ticket: Ticket) -> None:
        """A streamed answer goes on: it has ``stream_gap`` seconds again, within its longest time."""
        ticket.expires_at = min(self._loop.time() + ticket.request.stream_gap, ticket.stream_ends_at)

    def _expire(self, ticket: Ticket) -> None:
        if ticket.is_over:
            return
        if ticket.stream is not None and ticket.expires_at > self._loop.time():
            ticket.deadline = self._deadlines.add(ticket, ticket.expires_at)
            return
        self._withdraw(ticket)
        self._end(ticket, DeadlineExceeded(messages.TIMED_OUT))

    def _free_slot(self, ticket: Ticket, now: float, *, ended: int = 0) -> None:
        _take_back(ticket, ticket.accept)
        if ticket.attempt and ticket.replica is not None:
            del self._attempts[ticket.attempt]
            ticket.replica.in_flight -= 1
            ticket.pool.load.change(now, in_flight=-1, ended=ended)
            if ticket.accepted_at is not None and ticket.sent_at is not None and not ticket.request.spare:
                ticket.pool.policy.left(now, now - ticket.sent_at, len(ticket.pool.queue))
            ticket.attempt = 0
            ticket.replica = None

    def _end(self, ticket: Ticket, how: Outcome | Exception | None, *, drain: bool = True) -> None:
        """Settle the ticket whatever state it is in, and give its slot to the next in the queue."""
        pool, now = ticket.pool, self._loop.time()
        if ticket.attempt:
            if ticket.replica is not None:
                # Whose the slot is now: the replica may have changed hands while it worked.
                pool = self._pool_of.get(ticket.replica.id, pool)
            self._free_slot(ticket, now, ended=1)
        elif ticket in pool.queue:
            pool.dequeue(ticket, now, ended=1)
        else:
            ticket.pool.load.change(now, ended=1)
        _take_back(ticket, ticket.deadline)
        _take_back(ticket, ticket.wait)
        if ticket.stream is not None:
            ticket.stream.end(how if isinstance(how, Exception) else None)
        elif not ticket.outcome.done():
            if isinstance(how, Exception):
                ticket.outcome.set_exception(how)
            elif how is not None:
                ticket.outcome.set_result(how)
        # Not when the garbage collector finds what refers to the ticket: that may be many long bodies later.
        ticket.request.body = b""
        if drain and pool.queue:
            self._drain(pool)


def _require_hope(pool: EntityPool) -> None:
    """Raise Unavailable when nobody should wait for a replica: the last start failed."""
    if pool.cannot_start:
        raise _cannot_start(pool)


def _cannot_start(pool: EntityPool) -> Unavailable:
    return Unavailable(
        messages.CANNOT_START.format(problem=pool.problem),
        retry_after=dispatch_limits.CANNOT_START_RETRY,
        reason="cannot_start",
    )


def _lost(outcome: Outcome) -> Unavailable:
    """What a client is told whose request's model process died, with the reason as its agent knows it."""
    told = error_message(outcome.body)
    message = messages.REPLICA_DIED if told is None else f"{told} {messages.NOT_RUN_AGAIN}"
    return Unavailable(message, retry_after=1, reason="replica_died")


def _take_back(ticket: Ticket, limit: set[Ticket] | None) -> None:
    if limit is not None:
        limit.discard(ticket)
