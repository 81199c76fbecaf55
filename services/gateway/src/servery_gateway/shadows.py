"""Send copies of answered requests to served entities that are tried out, and compare the answers.

The client has its answer, or is being sent it, when a copy leaves. A copy never waits: it takes a slot nobody waits for
or is left out, also when this gateway, its memory for copies, or the way to the replicas is full. It belongs to no
client: no quota, rate limit or metric of requests sees it. It is work, though, and so it is in the load that is
reported to the scaler, and asks for a replica when its served entity is at zero; it is not held for that replica.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog

from servery_common.contracts.routes import EndpointRoute, ServedEntityRoute
from servery_common.errors import ServeryError
from servery_gateway.answer_comparison import difference
from servery_gateway.answer_stream import AnswerStream
from servery_gateway.answers import scoring_answer
from servery_gateway.dispatcher import Dispatcher
from servery_gateway.entity_pool import CallerLeft, EntityWithdrawn, NoSpareSlot, ScoringRequest, Ticket
from servery_gateway.http import Answer
from servery_gateway.load_balancing import TrafficPoints
from servery_gateway.long_body import LongBody
from servery_gateway.loop_lag import LoopLag
from servery_gateway.request_trace import UNTRACED
from servery_gateway.routing_table import Change
from servery_gateway.shadow_tally import ShadowTallies

MAX_UNDER_WAY = 64
MAX_BYTES = 16 * 1024 * 1024
"""Of all copies under way, with the answers they are compared with."""
MAX_ANSWER_BYTES = 64 * 1024
"""Of a longer answer no copy is made: to compare it would hold all other requests up for milliseconds."""
LINES_PER_MINUTE = 10
"""Differences that are logged."""

log = structlog.get_logger(__name__)


class _Shadow(NamedTuple):
    """One served entity that is sent copies."""

    endpoint: str
    entity: ServedEntityRoute
    timeout_seconds: float


class _Copy(NamedTuple):
    """One that is under way."""

    shadow: _Shadow
    ticket: Ticket
    answer: Answer
    primary_ms: float
    held: int
    """Bytes."""


class Shadows:
    """``random`` answers floats in [0, 1)."""

    def __init__(self, dispatcher: Dispatcher, lag: LoopLag, random: Callable[[], float]) -> None:
        self.tallies = ShadowTallies()
        self.under_way = 0
        self.held_bytes = 0
        self._dispatcher = dispatcher
        self._lag = lag
        self._points = TrafficPoints(random)
        self._shadows: dict[str, tuple[_Shadow, ...]] = {}
        """By endpoint id; without those that have none."""
        self._loop = asyncio.get_running_loop()
        self._minute = 0
        self._lines = 0

    def follow(self, changes: Sequence[Change[EndpointRoute]]) -> None:
        """Follow changes of routes."""
        for endpoint_id, before, after in changes:
            kept = {one.served_entity_id for one in after.served_entities} if after else set[str]()
            for entity in before.served_entities if before else ():
                if entity.served_entity_id not in kept:
                    self.tallies.remove(entity.served_entity_id)
                    self._points.forget(entity.served_entity_id)
            self._shadows.pop(endpoint_id, None)
            if after is None:
                continue
            shadows = [one for one in after.served_entities if one.shadow_percentage > 0]
            for entity in shadows:
                self.tallies.add(endpoint_id, entity.served_entity_id)
            if shadows:
                self._shadows[endpoint_id] = tuple(
                    _Shadow(after.name, entity, after.timeout_seconds) for entity in shadows
                )

    def answered(self, ticket: Ticket, body: bytes | LongBody, answer: Answer) -> None:
        """A request got its answer from a replica: send copies to who is due. Returns at once, raises nothing."""
        shadows = self._shadows.get(ticket.pool.endpoint_id)
        if shadows is None:
            return
        now = self._loop.time()
        primary_ms = 0.0 if ticket.sent_at is None else (now - ticket.sent_at) * 1000
        for shadow in shadows:
            shadow_id = shadow.entity.served_entity_id
            if shadow_id == ticket.request.served_entity_id:
                continue
            if self._points.next(shadow_id) * 100 < shadow.entity.shadow_percentage:
                # After what this turn of the event loop has to do for clients.
                self._loop.call_soon(self._send, shadow, ticket.request, body, answer, primary_ms)

    def _send(
        self,
        shadow: _Shadow,
        original: ScoringRequest,
        body: bytes | LongBody,
        answer: Answer,
        primary_ms: float,
    ) -> None:
        ticket = None
        held = len(body) + len(answer.body)
        if self._has_room(held, answer):
            request = ScoringRequest(
                shadow.entity.served_entity_id,
                original.content_type,
                original.request_id,
                body,
                self._loop.time() + shadow.timeout_seconds,
                UNTRACED,
                spare=True,
            )
            # One that clients' requests go to as well keeps a slot for the next of them.
            leave_free = 1 if shadow.entity.traffic_percentage > 0 else 0
            ticket = self._dispatcher.submit_spare(request, leave_free=leave_free)
        if ticket is None:
            self._skipped(shadow)
            return
        self.under_way += 1
        self.held_bytes += held
        copy = _Copy(shadow, ticket, answer, primary_ms, held)
        ticket.outcome.add_done_callback(lambda _: self._ended(copy))

    def _has_room(self, more: int, answer: Answer) -> bool:
        return (
            not self._lag.too_long
            and len(answer.body) <= MAX_ANSWER_BYTES
            and self.under_way < MAX_UNDER_WAY
            and self.held_bytes + more <= MAX_BYTES
        )

    def _ended(self, copy: _Copy) -> None:
        self.under_way -= 1
        self.held_bytes -= copy.held
        try:
            outcome = copy.ticket.outcome.result()
        except (NoSpareSlot, EntityWithdrawn):
            self._skipped(copy.shadow)
            return
        except (ServeryError, CallerLeft):
            self._failed(copy.shadow)
            return
        if isinstance(outcome, AnswerStream):
            self._dispatcher.abandon(copy.ticket)
            self._failed(copy.shadow)
            return
        self._compare(copy, scoring_answer(outcome))

    def _compare(self, copy: _Copy, answer: Answer) -> None:
        tally = self.tallies.changing(copy.shadow.entity.served_entity_id)
        if tally is None:
            return
        sent_at = copy.ticket.sent_at
        if sent_at is not None:
            tally.latency.record((self._loop.time() - sent_at) * 1000)
            tally.primary_latency.record(copy.primary_ms)
        too_long = len(answer.body) > 2 * MAX_ANSWER_BYTES  # other spaces and digits do not double it
        found = None if too_long else difference(copy.answer, answer)
        if not too_long and found is None:
            tally.same += 1
            return
        tally.different += 1
        if self._may_log():
            names = {"endpoint": copy.shadow.endpoint, "served_entity": copy.shadow.entity.name}
            request_id = copy.ticket.request.request_id
            kind = "length" if found is None else found.kind
            statuses = (copy.answer.status, answer.status)
            log.info("shadow_differs", **names, request_id=request_id, kind=kind, statuses=statuses)
            if found is not None:
                # What models make of people's data is for those who ask for it.
                log.debug("shadow_difference", request_id=request_id, where=found.where, values=found.values)

    def _skipped(self, shadow: _Shadow) -> None:
        tally = self.tallies.changing(shadow.entity.served_entity_id)
        if tally is not None:
            tally.skipped += 1

    def _failed(self, shadow: _Shadow) -> None:
        tally = self.tallies.changing(shadow.entity.served_entity_id)
        if tally is not None:
            tally.failed += 1

    def _may_log(self) -> bool:
        minute = int(self._loop.time() / 60)
        if minute != self._minute:
            self._minute, self._lines = minute, 0
        self._lines += 1
        return self._lines <= LINES_PER_MINUTE
