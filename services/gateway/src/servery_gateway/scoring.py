"""``POST /serving-endpoints/{name}/invocations``: admit, read the body, dispatch, answer.

The order matters: everything that can be decided on the headers is decided before a byte of the body is read.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from servery_common.contracts.access import Identity
from servery_common.contracts.routes import EndpointRoute, ServedEntityRoute
from servery_common.errors import BadRequest, RequestLimitExceeded, ServeryError, Unavailable
from servery_gateway import admission, messages
from servery_gateway.answer_stream import AnswerStream
from servery_gateway.answers import scoring_answer
from servery_gateway.auth import Authenticator
from servery_gateway.disconnects import DisconnectWatch, DisconnectWatches
from servery_gateway.dispatcher import Dispatcher
from servery_gateway.entity_pool import CallerLeft, EntityWithdrawn, ScoringRequest, Ticket
from servery_gateway.failure_log import FailureLog
from servery_gateway.http import (
    Answer,
    ClientDisconnected,
    Header,
    Receive,
    Send,
    declared_length,
    error_answer,
    expects_continue,
    header_value,
    request_id_of,
    send_answer,
)
from servery_gateway.http_protocol import body_has_arrived
from servery_gateway.load_balancing import TrafficPoints
from servery_gateway.loop_lag import LoopLag
from servery_gateway.quotas import WorkspaceQuotas
from servery_gateway.rate_limits import RateLimiter
from servery_gateway.rejections import NO_ENDPOINT, Rejections
from servery_gateway.request_body import BodyBudget, Owner, RequestBody
from servery_gateway.request_meter import EntityMeter, RequestMeters
from servery_gateway.request_trace import RequestTrace, RequestTracer
from servery_gateway.routing_table import Change, RoutingTable
from servery_gateway.settings import GatewaySettings
from servery_gateway.streaming import send_stream

MAX_REROUTES = 3
"""How often a request may find its served entity gone from the route before it is told to come back."""
CLIENT_CLOSED_REQUEST = 499
"""Seen in traces only: there is nobody to answer."""


class Target(NamedTuple):
    """What the path of a scoring request names."""

    endpoint: str
    served_entity: str | None = None


class _Streamed(NamedTuple):
    """An answer that has begun and is to be sent as it comes."""

    stream: AnswerStream
    ticket: Ticket
    watch: DisconnectWatch


class _Exchange:
    """One request and what is known about its answer so far."""

    __slots__ = (
        "began",
        "body",
        "headers",
        "identity",
        "meter",
        "predict_ms",
        "queue_ms",
        "receive",
        "request_id",
        "response_headers",
        "served_entity",
        "target",
        "trace",
    )

    def __init__(
        self,
        target: Target,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        budget: BodyBudget,
        trace: RequestTrace,
    ) -> None:
        self.began = time.perf_counter()
        self.target = target
        self.headers = headers
        self.receive = receive
        self.body = RequestBody(receive, headers, budget)
        self.trace = trace
        request_id = request_id_of(headers)
        self.request_id = request_id.decode()
        self.response_headers: list[Header] = [(b"x-request-id", request_id)]
        self.served_entity: str | None = None
        self.identity: Identity | None = None
        self.meter: EntityMeter | None = None
        self.queue_ms: float | None = None
        self.predict_ms: float | None = None


class ScoringHandler:
    """Answers scoring requests."""

    def __init__(
        self,
        settings: GatewaySettings,
        table: RoutingTable,
        authenticator: Authenticator,
        quotas: WorkspaceQuotas,
        limiter: RateLimiter,
        dispatcher: Dispatcher,
        budget: BodyBudget,
        tracer: RequestTracer,
        meters: RequestMeters,
        rejections: Rejections,
        lag: LoopLag,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._table = table
        self._authenticator = authenticator
        self._quotas = quotas
        self._limiter = limiter
        self._dispatcher = dispatcher
        self._budget = budget
        self._tracer = tracer
        self._meters = meters
        self._rejections = rejections
        self._lag = lag
        self._points = TrafficPoints(random)
        table.follow_routes(self._follow)
        self._failures = FailureLog()
        self._watches = DisconnectWatches()

    def _follow(self, changes: Sequence[Change[EndpointRoute]]) -> None:
        for change in changes:
            if change.after is None:
                self._points.forget(change.key)

    async def handle(
        self, target: Target, headers: Mapping[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        """Score one request and send the answer."""
        exchange = _Exchange(target, headers, receive, self._budget, self._tracer.begin(headers))
        reason = "the model answered so"
        try:
            answer = await self._answer(exchange)
        except ServeryError as error:
            answer, reason = error_answer(error), error.message
            self._rejections.count(self._endpoint_id(exchange), error)
        except (ClientDisconnected, CallerLeft):
            exchange.trace.ended(CLIENT_CLOSED_REQUEST)
            return
        finally:
            exchange.body.release()
        if exchange.served_entity is not None:
            exchange.response_headers.append((b"served-model-name", header_value(exchange.served_entity)))
        if isinstance(answer, _Streamed):
            await self._stream(exchange, answer, send)
            return
        # Before it is sent: how fast the client reads is not the endpoint's latency.
        self._ended(exchange, answer.status, reason)
        await send_answer(send, answer, exchange.response_headers)

    async def _stream(self, exchange: _Exchange, answer: _Streamed, send: Send) -> None:
        try:
            broken_off = await send_stream(send, answer.stream, exchange.response_headers)
        except CallerLeft:
            exchange.trace.ended(CLIENT_CLOSED_REQUEST)
            return
        finally:
            answer.watch.stop()
            self._dispatcher.abandon(answer.ticket)
        exchange.predict_ms = answer.stream.predict_ms
        status, reason = broken_off or (answer.stream.status, "")
        self._ended(exchange, status, reason, at=answer.stream.ended_at)

    def _ended(self, exchange: _Exchange, status: int, reason: str, *, at: float | None = None) -> None:
        """Record the end; ``at`` (on ``time.perf_counter``) when the answer was ready earlier than now."""
        exchange.trace.ended(status)
        if exchange.meter is not None:
            exchange.meter.record(
                status,
                ((time.perf_counter() if at is None else at) - exchange.began) * 1000,
                queue_ms=exchange.queue_ms,
                predict_ms=exchange.predict_ms,
            )
        if status >= 400:
            self._failures.note(
                status,
                reason,
                endpoint=exchange.target.endpoint,
                request_id=exchange.request_id,
                trace_id=exchange.trace.trace_id,
            )

    async def _answer(self, exchange: _Exchange) -> Answer | _Streamed:
        try:
            identity, route, entity, content_type = await self._admit(exchange)
        except ServeryError:
            if expects_continue(exchange.headers):
                exchange.response_headers.append((b"connection", b"close"))
            raise
        loop = asyncio.get_running_loop()
        deadline = loop.time() + admission.time_budget(route.timeout_seconds, self._settings.answer_margin)
        body = await self._read_body(exchange, route, entity, deadline)
        for _ in range(MAX_REROUTES):
            exchange.trace.admitted(route.name, entity.name, exchange.request_id, len(body))
            request = ScoringRequest(
                entity.served_entity_id,
                content_type,
                exchange.request_id,
                body,
                deadline,
                exchange.trace,
                stream_gap=route.timeout_seconds,
                stream_seconds=route.max_stream_seconds,
            )
            try:
                return await self._dispatch(request, exchange)
            except EntityWithdrawn:
                # The endpoint was updated while the request waited: it may be served by what came instead.
                route, entity = self._route(exchange, identity)
        raise Unavailable("The endpoint is being updated. Try again in a moment.", reason="not_serving")

    async def _admit(self, exchange: _Exchange) -> tuple[Identity, EndpointRoute, ServedEntityRoute, str]:
        """Decide on the headers alone. Raises a ServeryError."""
        if self._lag.too_long:
            raise Unavailable(messages.GATEWAY_BUSY, reason="gateway_busy")
        exchange.identity, _ = await self._authenticator.authenticate(exchange.headers.get(b"authorization"))
        identity = exchange.identity
        exchange.response_headers.append((b"x-databricks-org-id", header_value(identity.workspace_id)))
        route, entity = self._route(exchange, identity)
        content_type = admission.content_type_of(exchange.headers)
        # Last: what is refused for another reason takes nothing of a quota and is no call.
        self._quotas.admit(identity.workspace_id)
        try:
            self._limiter.admit(route, identity)
        except RequestLimitExceeded:
            self._quotas.give_back(identity.workspace_id)
            raise
        return identity, route, entity, content_type

    def _route(self, exchange: _Exchange, identity: Identity) -> tuple[EndpointRoute, ServedEntityRoute]:
        route = admission.find_route(self._table.snapshot, identity, exchange.target.endpoint)
        named = exchange.target.served_entity
        # Requests that name their served entity take no point from those that are split.
        point = self._points.next(route.endpoint_id) if named is None else 0.0
        entity = admission.find_served_entity(route, named, point)
        exchange.served_entity = entity.name
        exchange.meter = self._meters.of(entity.served_entity_id)
        return route, entity

    def _endpoint_id(self, exchange: _Exchange) -> str:
        """Return the id of the endpoint the caller named, if it is one of their workspace's."""
        if exchange.identity is None:
            return NO_ENDPOINT
        name = (exchange.identity.workspace_id, exchange.target.endpoint)
        route = self._table.snapshot.by_name.get(name)
        return NO_ENDPOINT if route is None else route.endpoint_id

    async def _read_body(
        self, exchange: _Exchange, route: EndpointRoute, entity: ServedEntityRoute, deadline: float
    ) -> bytes | bytearray:
        try:
            self._dispatcher.require_room(
                entity.served_entity_id, deadline, declared_length(exchange.headers) or 0
            )
            owner, longest = Owner(route.workspace_id, route.endpoint_id), self._settings.max_body_bytes
            if body_has_arrived(exchange.receive):
                return await exchange.body.read(longest, owner)
            async with asyncio.timeout_at(deadline):
                return await exchange.body.read(longest, owner)
        except TimeoutError:
            refused = BadRequest("The request body did not arrive within the endpoint's timeout.")
        except ServeryError as error:
            refused = error
        if not await exchange.body.discard(self._settings.max_drain_bytes, deadline):
            exchange.response_headers.append((b"connection", b"close"))
        raise refused

    async def _dispatch(self, request: ScoringRequest, exchange: _Exchange) -> Answer | _Streamed:
        ticket = self._dispatcher.submit(request)
        watch = self._watches.begin(exchange.receive, lambda: self._dispatcher.abandon(ticket))
        begun = False
        try:
            outcome = await ticket.outcome
            if isinstance(outcome, AnswerStream):
                begun = True
                return _Streamed(outcome, ticket, watch)
            exchange.predict_ms = outcome.predict_ms
            return scoring_answer(outcome)
        finally:
            exchange.queue_ms = ticket.queue_ms
            if not begun:
                watch.stop()
                self._dispatcher.abandon(ticket)
