"""``POST /serving-endpoints/{name}/invocations`` in general: admit, read the body, dispatch, answer.

Everything that can be decided on the headers is decided before a byte of the body is read. Short requests, which need
nothing that has to be waited for, do not come here (``short_requests``).
"""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from servery_common.contracts.routes import EndpointRoute, ServedEntityRoute
from servery_common.errors import BadRequest, ServeryError, Unavailable
from servery_gateway import messages
from servery_gateway.answer_stream import AnswerStream
from servery_gateway.answers import scoring_answer
from servery_gateway.auth import Authenticator
from servery_gateway.disconnects import DisconnectWatch, DisconnectWatches
from servery_gateway.dispatcher import Dispatcher
from servery_gateway.doorkeeper import Doorkeeper
from servery_gateway.entity_pool import CallerLeft, EntityWithdrawn, ScoringRequest, Ticket
from servery_gateway.exchange import Admitted, Exchange, Target
from servery_gateway.http import (
    Answer,
    ClientDisconnected,
    Receive,
    Send,
    declared_length,
    expects_continue,
    send_answer,
)
from servery_gateway.long_body import LongBody
from servery_gateway.request_body import BodyBudget, Owner, RequestBody
from servery_gateway.request_trace import RequestTracer
from servery_gateway.settings import GatewaySettings
from servery_gateway.shadows import Shadows
from servery_gateway.streaming import send_stream

MAX_REROUTES = 3
"""How often a request may find its served entity gone from the route before it is told to come back."""
CLIENT_CLOSED_REQUEST = 499
"""Seen in traces only: there is nobody to answer."""
ANSWERED = "the model answered so"
"""The reason of a status that is not an error of this gateway."""


class _Streamed(NamedTuple):
    """An answer that has begun and is to be sent as it comes."""

    stream: AnswerStream
    ticket: Ticket
    watch: DisconnectWatch


class ScoringHandler:
    """Answers scoring requests over ASGI."""

    def __init__(
        self,
        settings: GatewaySettings,
        authenticator: Authenticator,
        doorkeeper: Doorkeeper,
        dispatcher: Dispatcher,
        budget: BodyBudget,
        tracer: RequestTracer,
        shadows: Shadows,
    ) -> None:
        self._settings = settings
        self._authenticator = authenticator
        self._doorkeeper = doorkeeper
        self._dispatcher = dispatcher
        self._budget = budget
        self._tracer = tracer
        self._shadows = shadows
        self._watches = DisconnectWatches()

    async def handle(
        self,
        target: Target,
        headers: Mapping[bytes, bytes],
        client: str | None,
        receive: Receive,
        send: Send,
    ) -> None:
        """Score one request and send the answer. ``client``: the address it came from."""
        exchange = Exchange(target, headers, self._tracer.begin(headers), client)
        body = RequestBody(receive, headers, self._budget)
        reason = ANSWERED
        try:
            answer = await self._answer(exchange, body, receive)
        except ServeryError as error:
            answer, reason = self._doorkeeper.refused(exchange, error), error.message
        except (ClientDisconnected, CallerLeft):
            exchange.trace.ended(CLIENT_CLOSED_REQUEST)
            return
        finally:
            body.release()
        if isinstance(answer, _Streamed):
            try:
                await stream_answer(self._doorkeeper, exchange, answer.stream, send)
            finally:
                answer.watch.stop()
                self._dispatcher.abandon(answer.ticket)
            return
        # Before it is sent: how fast the client reads is not the endpoint's latency.
        self._doorkeeper.ended(exchange, answer.status, reason)
        await send_answer(send, answer, exchange.headers_of_answer())

    async def _answer(self, exchange: Exchange, body: RequestBody, receive: Receive) -> Answer | _Streamed:
        try:
            self._doorkeeper.require_time()
            identity, _ = await self._authenticator.authenticate(exchange.headers.get(b"authorization"))
            admitted = self._doorkeeper.admit(exchange, identity)
        except ServeryError:
            if expects_continue(exchange.headers):
                exchange.response_headers.append((b"connection", b"close"))
            raise
        deadline = self._doorkeeper.deadline(admitted.route, asyncio.get_running_loop().time())
        content = await self._read_body(exchange, body, admitted.route, admitted.entity, deadline)
        for _ in range(MAX_REROUTES):
            request = self._doorkeeper.request(exchange, admitted, content, deadline)
            try:
                return await self._dispatch(request, exchange, receive)
            except EntityWithdrawn:
                # The endpoint was updated while the request waited: it may be served by what came instead.
                admitted = Admitted(*self._doorkeeper.route(exchange, identity), admitted.content_type)
        raise Unavailable(messages.UPDATING, reason="not_serving")

    async def _read_body(
        self,
        exchange: Exchange,
        body: RequestBody,
        route: EndpointRoute,
        entity: ServedEntityRoute,
        deadline: float,
    ) -> bytes | LongBody:
        try:
            self._dispatcher.require_room(
                entity.served_entity_id, deadline, declared_length(exchange.headers) or 0
            )
            owner, longest = Owner(route.workspace_id, route.endpoint_id), self._settings.max_body_bytes
            async with asyncio.timeout_at(deadline):
                return await body.read(longest, owner)
        except TimeoutError:
            refused = BadRequest("The request body did not arrive within the endpoint's timeout.")
        except ServeryError as error:
            refused = error
        if not await body.discard(self._settings.max_drain_bytes, deadline):
            exchange.response_headers.append((b"connection", b"close"))
        raise refused

    async def _dispatch(
        self, request: ScoringRequest, exchange: Exchange, receive: Receive
    ) -> Answer | _Streamed:
        content = request.body
        ticket = self._dispatcher.submit(request)
        watch = self._watches.begin(receive, lambda: self._dispatcher.abandon(ticket))
        begun = False
        try:
            outcome = await ticket.outcome
            if isinstance(outcome, AnswerStream):
                begun = True
                return _Streamed(outcome, ticket, watch)
            exchange.predict_ms = outcome.predict_ms
            answer = scoring_answer(outcome)
            self._shadows.answered(ticket, content, answer)
            return answer
        finally:
            exchange.queue_ms = ticket.queue_ms
            if not begun:
                watch.stop()
                self._dispatcher.abandon(ticket)


async def stream_answer(doorkeeper: Doorkeeper, exchange: Exchange, stream: AnswerStream, send: Send) -> None:
    """Send an answer as it comes, and record how it ended."""
    try:
        broken_off = await send_stream(send, stream, exchange.headers_of_answer())
    except CallerLeft:
        exchange.trace.ended(CLIENT_CLOSED_REQUEST)
        return
    exchange.predict_ms = stream.predict_ms
    status, reason = broken_off or (stream.status, "")
    doorkeeper.ended(exchange, status, reason, at=stream.ended_at)
