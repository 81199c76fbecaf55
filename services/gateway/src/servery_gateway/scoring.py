"""``POST /serving-endpoints/{name}/invocations``: admit, read the body, dispatch, answer.

The order matters: everything that can be decided on the headers is decided before a byte of the body is read.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

from servery_common.contracts.routes import EndpointRoute, Identity
from servery_common.errors import BadRequest, ServeryError, Unavailable
from servery_gateway import admission
from servery_gateway.answers import scoring_answer
from servery_gateway.auth import Authenticator
from servery_gateway.dispatcher import CallerLeft, Dispatcher, EntityWithdrawn
from servery_gateway.entity_pool import ScoringRequest
from servery_gateway.failure_log import FailureLog
from servery_gateway.http import (
    Answer,
    BodyTooLong,
    ClientDisconnected,
    DisconnectWatch,
    Header,
    Receive,
    Send,
    declared_length,
    error_answer,
    expects_continue,
    header_value,
    read_body,
    request_id_of,
    send_answer,
)
from servery_gateway.request_trace import RequestTrace, RequestTracer
from servery_gateway.routing_table import RoutingTable
from servery_gateway.settings import GatewaySettings

MAX_REROUTES = 3
"""How often a request may find its served entity gone from the route before it is told to come back."""
CLIENT_CLOSED_REQUEST = 499
"""Seen in traces only: there is nobody to answer."""


class Target(NamedTuple):
    """What the path of a scoring request names."""

    endpoint: str
    served_entity: str | None = None


class _Exchange:
    """One request and what is known about its answer so far."""

    __slots__ = ("headers", "receive", "request_id", "response_headers", "served_entity", "target", "trace")

    def __init__(
        self, target: Target, headers: Mapping[bytes, bytes], receive: Receive, trace: RequestTrace
    ) -> None:
        self.target = target
        self.headers = headers
        self.receive = receive
        self.trace = trace
        request_id = request_id_of(headers)
        self.request_id = request_id.decode()
        self.response_headers: list[Header] = [(b"x-request-id", request_id)]
        self.served_entity: str | None = None


class ScoringHandler:
    """Answers scoring requests."""

    def __init__(
        self,
        settings: GatewaySettings,
        table: RoutingTable,
        authenticator: Authenticator,
        dispatcher: Dispatcher,
        tracer: RequestTracer,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._table = table
        self._authenticator = authenticator
        self._dispatcher = dispatcher
        self._tracer = tracer
        self._draw = draw
        self._failures = FailureLog()
        self._too_long = (
            f"The request body is longer than the limit of {settings.max_body_bytes} bytes "
            f"({settings.max_body_bytes // (1024 * 1024)} MB)."
        )

    async def handle(
        self, target: Target, headers: Mapping[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        """Score one request and send the answer."""
        exchange = _Exchange(target, headers, receive, self._tracer.begin(headers))
        try:
            answer = await self._answer(exchange)
        except ServeryError as error:
            self._failures.note(
                error,
                endpoint=target.endpoint,
                request_id=exchange.request_id,
                trace_id=exchange.trace.trace_id,
            )
            answer = error_answer(error)
        except (ClientDisconnected, CallerLeft):
            exchange.trace.ended(CLIENT_CLOSED_REQUEST)
            return
        exchange.trace.ended(answer.status)
        if exchange.served_entity is not None:
            exchange.response_headers.append((b"served-model-name", header_value(exchange.served_entity)))
        await send_answer(send, answer, exchange.response_headers)

    async def _answer(self, exchange: _Exchange) -> Answer:
        try:
            identity, route, content_type = self._admit(exchange)
        except ServeryError:
            if expects_continue(exchange.headers):
                exchange.response_headers.append((b"connection", b"close"))
            raise
        loop = asyncio.get_running_loop()
        deadline = loop.time() + admission.time_budget(route.timeout_seconds, self._settings.answer_margin)
        body = await self._read_body(exchange, deadline)
        for _ in range(MAX_REROUTES):
            entity = admission.find_served_entity(route, exchange.target.served_entity, self._draw())
            exchange.served_entity = entity.name
            exchange.trace.admitted(route.name, entity.name, exchange.request_id, len(body))
            request = ScoringRequest(
                entity.served_entity_id, content_type, exchange.request_id, body, deadline, exchange.trace
            )
            try:
                return await self._dispatch(request, exchange.receive)
            except EntityWithdrawn:
                # The endpoint was updated while the request waited: it may be served by what came instead.
                route = admission.find_route(self._table.snapshot, identity, exchange.target.endpoint)
        raise Unavailable("The endpoint is being updated. Try again in a moment.")

    def _admit(self, exchange: _Exchange) -> tuple[Identity, EndpointRoute, str]:
        """Decide on the headers alone. Raises a ServeryError."""
        identity = self._authenticator.authenticate(exchange.headers.get(b"authorization"))
        exchange.response_headers.append((b"x-databricks-org-id", header_value(identity.workspace_id)))
        route = admission.find_route(self._table.snapshot, identity, exchange.target.endpoint)
        if exchange.target.served_entity is not None:
            admission.find_served_entity(route, exchange.target.served_entity, 0.0)
        length = declared_length(exchange.headers)
        if (
            length is not None
            and length > self._settings.max_body_bytes
            and expects_continue(exchange.headers)
        ):
            raise BadRequest(self._too_long)
        return identity, route, admission.content_type_of(exchange.headers)

    async def _read_body(self, exchange: _Exchange, deadline: float) -> bytes:
        try:
            async with asyncio.timeout_at(deadline):
                return await read_body(
                    exchange.receive,
                    declared=declared_length(exchange.headers),
                    limit=self._settings.max_body_bytes,
                    drain_limit=self._settings.max_drain_bytes,
                )
        except BodyTooLong as error:
            if not error.drained:
                exchange.response_headers.append((b"connection", b"close"))
            raise BadRequest(self._too_long) from None
        except TimeoutError:
            exchange.response_headers.append((b"connection", b"close"))
            raise BadRequest("The request body did not arrive within the endpoint's timeout.") from None

    async def _dispatch(self, request: ScoringRequest, receive: Receive) -> Answer:
        ticket = self._dispatcher.submit(request)
        watch = DisconnectWatch(receive, lambda: self._dispatcher.abandon(ticket))
        try:
            return scoring_answer(await ticket.outcome)
        finally:
            watch.stop()
            self._dispatcher.abandon(ticket)
