"""Scoring requests that need nothing that has to be waited for but their answer: nearly all of them.

The body has arrived with the headers and the caller is known. Such a request is admitted and dispatched in the call
that read its last byte, and answered in the call that hears of its outcome: no task, no ASGI. What it goes through is
the same as for all others (``doorkeeper``, ``dispatcher``).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import structlog

from servery_common.contracts.access import Identity
from servery_common.errors import Internal, ServeryError, Unavailable
from servery_gateway import messages
from servery_gateway.answer_stream import AnswerStream
from servery_gateway.answers import scoring_answer
from servery_gateway.auth import Authenticator
from servery_gateway.dispatcher import Dispatcher
from servery_gateway.doorkeeper import Doorkeeper
from servery_gateway.entity_pool import CallerLeft, EntityWithdrawn, Ticket
from servery_gateway.exchange import Admitted, Exchange, Target
from servery_gateway.http import Answer, Header, Send, error_answer
from servery_gateway.request_body import BodyBudget, Owner, require_length
from servery_gateway.request_trace import RequestTracer
from servery_gateway.scoring import ANSWERED, CLIENT_CLOSED_REQUEST, MAX_REROUTES, stream_answer
from servery_gateway.shadows import Shadows
from servery_gateway.transport import Outcome

log = structlog.get_logger(__name__)


class Connection(Protocol):
    """Where the answer goes."""

    def respond(self, answer: Answer, headers: list[Header]) -> None:
        """Send the answer with ``headers`` before its own."""
        ...

    def stream(self, write: Callable[[Send], Awaitable[None]]) -> None:
        """Have the answer written by ``write``, as an ASGI application does."""
        ...


class ShortRequests:
    """Begins short requests."""

    def __init__(
        self,
        max_body_bytes: int,
        authenticator: Authenticator,
        doorkeeper: Doorkeeper,
        dispatcher: Dispatcher,
        budget: BodyBudget,
        tracer: RequestTracer,
        shadows: Shadows,
    ) -> None:
        self.max_body_bytes = max_body_bytes
        self.doorkeeper = doorkeeper
        self.dispatcher = dispatcher
        self.budget = budget
        self.shadows = shadows
        self._authenticator = authenticator
        self._tracer = tracer
        self._loop = asyncio.get_running_loop()

    def begin(
        self,
        target: Target,
        headers: Mapping[bytes, bytes],
        client: str | None,
        body: bytes,
        connection: Connection,
    ) -> "ShortRequest | None":
        """Take the request in; None when it has to take the long way: nothing was done about it then.

        ``client``: the address it came from.
        """
        caller = self._authenticator.known(headers.get(b"authorization"))
        if caller is None:
            return None
        exchange = Exchange(target, headers, self._tracer.begin(headers), client)
        request = ShortRequest(self, exchange, caller.identity, body, connection)
        request.begin(self._loop.time())
        return request


class ShortRequest:
    """One of them."""

    __slots__ = (
        "_admitted",
        "_body",
        "_connection",
        "_deadline",
        "_exchange",
        "_identity",
        "_left",
        "_owner",
        "_parts",
        "_reroutes",
        "_ticket",
    )

    def __init__(
        self,
        parts: ShortRequests,
        exchange: Exchange,
        identity: Identity,
        body: bytes,
        connection: Connection,
    ) -> None:
        self._parts = parts
        self._exchange = exchange
        self._identity = identity
        self._body = body
        self._connection = connection
        self._admitted: Admitted | None = None
        self._owner: Owner | None = None
        self._ticket: Ticket | None = None
        self._deadline = 0.0
        self._reroutes = 0
        self._left = False

    def begin(self, now: float) -> None:
        """Admit and dispatch it, or answer why not. ``now`` is on the event loop's clock."""
        parts = self._parts
        try:
            parts.doorkeeper.require_time()
            self._admitted = parts.doorkeeper.admit(self._exchange, self._identity)
            require_length(len(self._body), parts.max_body_bytes)
            route = self._admitted.route
            owner = Owner(route.workspace_id, route.endpoint_id)
            parts.budget.reserve(len(self._body), owner)
            self._owner = owner
            self._deadline = parts.doorkeeper.deadline(route, now)
            self._dispatch(self._admitted)
        except ServeryError as error:
            self._refuse(error)
        except Exception:
            self._fail()

    def left(self) -> None:
        """The client is gone."""
        self._left = True
        if self._ticket is not None:
            self._parts.dispatcher.abandon(self._ticket)

    def _dispatch(self, admitted: Admitted) -> None:
        """Bring it to a replica. Raises a ServeryError."""
        parts = self._parts
        while True:
            request = parts.doorkeeper.request(self._exchange, admitted, self._body, self._deadline)
            try:
                self._ticket = parts.dispatcher.submit(request)
            except EntityWithdrawn:
                # The endpoint was updated: it may be served by what came instead.
                self._reroutes += 1
                if self._reroutes >= MAX_REROUTES:
                    raise Unavailable(messages.UPDATING, reason="not_serving") from None
                route, entity = parts.doorkeeper.route(self._exchange, self._identity)
                admitted = self._admitted = Admitted(route, entity, admitted.content_type)
            else:
                self._ticket.outcome.add_done_callback(self._on_outcome)
                return

    def _on_outcome(self, outcome: "asyncio.Future[Outcome | AnswerStream]") -> None:
        if self._ticket is not None:
            self._exchange.queue_ms = self._ticket.queue_ms
        try:
            self._answer(outcome.result())
        except EntityWithdrawn:
            self._again()
        except CallerLeft:
            self._release()
            self._exchange.trace.ended(CLIENT_CLOSED_REQUEST)
        except ServeryError as error:
            self._refuse(error)
        except Exception:
            self._fail()

    def _answer(self, outcome: Outcome | AnswerStream) -> None:
        self._release()
        if isinstance(outcome, AnswerStream):
            if self._left:
                self.left()
                self._exchange.trace.ended(CLIENT_CLOSED_REQUEST)
                return
            self._connection.stream(lambda send: self._stream(outcome, send))
            return
        self._exchange.predict_ms = outcome.predict_ms
        answer = scoring_answer(outcome)
        self._respond(answer, ANSWERED)
        if self._ticket is not None:
            self._parts.shadows.answered(self._ticket, self._body, answer)

    def _again(self) -> None:
        """It waited, and its served entity left the route meanwhile."""
        if self._left:
            self._release()
            self._exchange.trace.ended(CLIENT_CLOSED_REQUEST)
            return
        try:
            route, entity = self._parts.doorkeeper.route(self._exchange, self._identity)
            assert self._admitted is not None
            self._reroutes += 1
            self._dispatch(Admitted(route, entity, self._admitted.content_type))
        except ServeryError as error:
            self._refuse(error)
        except Exception:
            self._fail()

    async def _stream(self, stream: AnswerStream, send: Send) -> None:
        try:
            await stream_answer(self._parts.doorkeeper, self._exchange, stream, send)
        finally:
            self.left()

    def _refuse(self, error: ServeryError) -> None:
        self._release()
        self._respond(self._parts.doorkeeper.refused(self._exchange, error), error.message)

    def _fail(self) -> None:
        log.exception("request_failed", endpoint=self._exchange.target.endpoint)
        self._release()
        error = Internal(messages.GATEWAY_FAILED)
        self._respond(error_answer(error), error.message)

    def _respond(self, answer: Answer, reason: str) -> None:
        self._parts.doorkeeper.ended(self._exchange, answer.status, reason)
        self._connection.respond(answer, self._exchange.headers_of_answer())

    def _release(self) -> None:
        if self._owner is not None:
            self._parts.budget.give_back(len(self._body), self._owner)
            self._owner = None
