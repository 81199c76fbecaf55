"""``/api/2.0/…``: carry a call of an authenticated caller to the controller, and its answer back.

The gateway looks at nothing but who calls, from where, and how long the body is; the API, its rules and its answers
are the controller's. Paths travel percent-encoded as they came, without a trailing slash: clients use both spellings.
"""

import asyncio
from collections.abc import Mapping
from typing import Protocol

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from servery_common.contracts import subjects
from servery_common.contracts.management import HttpAnswer, HttpCall
from servery_common.errors import BadRequest, ServeryError, Unavailable
from servery_common.messaging.port import Bus
from servery_common.tracing import extract
from servery_gateway.auth import Authenticator, Caller
from servery_gateway.http import (
    JSON,
    Answer,
    ClientDisconnected,
    Header,
    Receive,
    Scope,
    Send,
    client_of,
    error_answer,
    expects_continue,
    header_value,
    request_id_of,
    send_answer,
)
from servery_gateway.ip_access import IpAccess
from servery_gateway.request_body import BodyBudget, RequestBody
from servery_gateway.request_trace import trace_headers
from servery_gateway.settings import GatewaySettings

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
REQUEST_HEADERS = (b"content-type", b"accept")
"""What the API reads; the caller's credentials stay here."""
ANSWER_HEADERS = ("retry-after",)
UNREACHABLE = "The control plane cannot be reached right now. Scoring is not affected. Try again in a moment."


tracer = trace.get_tracer(__name__)


class BusHolder(Protocol):
    """Knows the bus, once it is connected for the first time."""

    @property
    def bus(self) -> Bus | None:
        """The bus, or None as long as NATS was never reached."""
        ...


class ManagementHandler:
    """Answers management calls."""

    def __init__(
        self,
        settings: GatewaySettings,
        authenticator: Authenticator,
        ip_access: IpAccess,
        holder: BusHolder,
        budget: BodyBudget,
    ) -> None:
        self._settings = settings
        self._authenticator = authenticator
        self._ip_access = ip_access
        self._holder = holder
        self._budget = budget

    async def handle(
        self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        """Carry one call and send the answer."""
        request_id = request_id_of(headers)
        response_headers: list[Header] = [(b"x-request-id", request_id)]
        method: str = scope["method"]
        body = RequestBody(receive, headers, self._budget)
        with tracer.start_as_current_span(
            span_name(method, scope["path"]), context=extract(trace_headers(headers)), kind=SpanKind.SERVER
        ) as span:
            span.set_attribute("servery.request_id", request_id.decode())
            try:
                caller = await self._admit(method, headers, client_of(scope), response_headers)
                content = await self._read_body(body, response_headers)
                answer = await self._carry(make_call(scope, headers, request_id, content, caller))
            except ServeryError as error:
                answer = error_answer(error)
            except ClientDisconnected:
                return
            finally:
                body.release()
            span.set_attribute("http.response.status_code", answer.status)
            if answer.status >= 500:
                span.set_status(Status(StatusCode.ERROR))
        await send_answer(send, answer, response_headers)

    async def _admit(
        self,
        method: str,
        headers: Mapping[bytes, bytes],
        client: str | None,
        response_headers: list[Header],
    ) -> Caller:
        """Decide on the headers alone. Raises a ServeryError."""
        try:
            caller = await self._authenticator.authenticate(headers.get(b"authorization"))
            response_headers.append((b"x-databricks-org-id", header_value(caller.identity.workspace_id)))
            self._ip_access.require(caller.identity.workspace_id, client)
            if method not in METHODS:
                raise BadRequest(f"{method} is not supported here.")
        except ServeryError:
            if expects_continue(headers):
                response_headers.append((b"connection", b"close"))
            raise
        return caller

    async def _read_body(self, body: RequestBody, response_headers: list[Header]) -> bytes:
        deadline = asyncio.get_running_loop().time() + self._settings.management_timeout
        try:
            async with asyncio.timeout_at(deadline):
                return bytes(await body.read(self._settings.max_management_body_bytes))
        except TimeoutError:
            refused = BadRequest("The request body did not arrive in time.")
        except ServeryError as error:
            refused = error
        if not await body.discard(self._settings.max_drain_bytes, deadline):
            response_headers.append((b"connection", b"close"))
        raise refused

    async def _carry(self, call: HttpCall) -> Answer:
        bus = self._holder.bus
        if bus is None or not bus.connected:
            raise Unavailable(UNREACHABLE, retry_after=1)
        try:
            reply = await bus.request(
                subjects.controller_http(), call, HttpAnswer, timeout=self._settings.management_timeout
            )
        except Unavailable as error:
            raise Unavailable(UNREACHABLE, retry_after=error.retry_after or 1) from error
        return http_answer(reply)


def make_call(
    scope: Scope, headers: Mapping[bytes, bytes], request_id: bytes, body: bytes, caller: Caller
) -> HttpCall:
    """Return the call as it travels. Raises BadRequest."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise BadRequest("The request body is not UTF-8.") from None
    carried = {name.decode(): headers[name].decode("latin-1") for name in REQUEST_HEADERS if name in headers}
    raw_path: bytes = scope["raw_path"]
    return HttpCall(
        method=scope["method"],
        path=raw_path.decode("latin-1").rstrip("/"),
        query=scope["query_string"].decode("latin-1"),
        headers={**carried, "x-request-id": request_id.decode()},
        body=text,
        identity=caller.identity,
        scope=caller.scope,
        client=client_of(scope) or "",
        host=f"{scope['scheme']}://{header_value(headers.get(b'host', b'').decode('latin-1')).decode()}",
    )


def http_answer(reply: HttpAnswer) -> Answer:
    """Return the controller's answer as an HTTP answer."""
    headers = tuple(
        (name.encode(), header_value(reply.headers[name])) for name in ANSWER_HEADERS if name in reply.headers
    )
    content_type = reply.headers.get("content-type")
    return Answer(
        reply.status, reply.body.encode(), header_value(content_type) if content_type else JSON, headers
    )


def span_name(method: str, path: str) -> str:
    """Return a span name without user-chosen parts: ``POST /api/2.0/serving-endpoints``."""
    return f"{method} {'/'.join(path.split('/')[:4])}"
