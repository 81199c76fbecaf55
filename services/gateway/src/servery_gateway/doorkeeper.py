"""Decide whether a scoring request may come in, and keep the books on how it ended.

Whatever can be decided on the headers is decided on them, in this order: the gateway itself, who calls, from where, the
endpoint and the permission on it, the form of the request, the workspace's quota, the endpoint's rate limits.
"""

import random
import time
from collections.abc import Callable, Sequence

from servery_common.contracts.access import Identity
from servery_common.contracts.routes import EndpointRoute, ServedEntityRoute
from servery_common.errors import RequestLimitExceeded, ServeryError, Unavailable
from servery_gateway import admission, messages
from servery_gateway.entity_pool import ScoringRequest
from servery_gateway.exchange import Admitted, Exchange
from servery_gateway.failure_log import FailureLog
from servery_gateway.http import Answer, error_answer, header_value
from servery_gateway.ip_access import IpAccess
from servery_gateway.load_balancing import TrafficPoints
from servery_gateway.long_body import LongBody
from servery_gateway.loop_lag import LoopLag
from servery_gateway.quotas import WorkspaceQuotas
from servery_gateway.rate_limits import RateLimiter
from servery_gateway.rejections import NO_ENDPOINT, Rejections
from servery_gateway.request_meter import RequestMeters
from servery_gateway.routing_table import Change, RoutingTable


class Doorkeeper:
    """Nothing here waits. ``answer_margin``: seconds that an answer is out before the endpoint's timeout."""

    def __init__(
        self,
        table: RoutingTable,
        ip_access: IpAccess,
        quotas: WorkspaceQuotas,
        limiter: RateLimiter,
        meters: RequestMeters,
        rejections: Rejections,
        lag: LoopLag,
        *,
        answer_margin: float,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._table = table
        self._ip_access = ip_access
        self._quotas = quotas
        self._limiter = limiter
        self._meters = meters
        self._rejections = rejections
        self._lag = lag
        self._answer_margin = answer_margin
        self._points = TrafficPoints(random)
        table.follow_routes(self._follow)
        self._failures = FailureLog()

    def _follow(self, changes: Sequence[Change[EndpointRoute]]) -> None:
        for change in changes:
            if change.after is None:
                self._points.forget(change.key)

    def require_time(self) -> None:
        """Raise Unavailable when this gateway has more to do than it can."""
        if self._lag.too_long:
            raise Unavailable(messages.GATEWAY_BUSY, reason="gateway_busy")

    def admit(self, exchange: Exchange, identity: Identity) -> Admitted:
        """Let the caller's request in. Raises a ServeryError."""
        exchange.identity = identity
        exchange.response_headers.append((b"x-databricks-org-id", header_value(identity.workspace_id)))
        self._ip_access.require(identity.workspace_id, exchange.client)
        route, entity = self.route(exchange, identity)
        content_type = admission.content_type_of(exchange.headers)
        # Last: what is refused for another reason takes nothing of a quota and is no call.
        self._quotas.admit(identity.workspace_id)
        try:
            self._limiter.admit(route, identity)
        except RequestLimitExceeded:
            self._quotas.give_back(identity.workspace_id)
            raise
        return Admitted(route, entity, content_type)

    def route(self, exchange: Exchange, identity: Identity) -> tuple[EndpointRoute, ServedEntityRoute]:
        """Return where the request goes now. Raises a ServeryError."""
        route = admission.find_route(self._table.snapshot, identity, exchange.target.endpoint)
        named = exchange.target.served_entity
        # Requests that name their served entity take no point from those that are split.
        split = named is None and len(route.served_entities) > 1
        point = self._points.next(route.endpoint_id) if split else 0.0
        entity = admission.find_served_entity(route, named, point)
        exchange.served_entity = entity.name
        exchange.meter = self._meters.of(entity.served_entity_id)
        return route, entity

    def deadline(self, route: EndpointRoute, now: float) -> float:
        """Return when a request that came now has to be answered, on the clock of ``now``."""
        return now + admission.time_budget(route.timeout_seconds, self._answer_margin)

    def request(
        self, exchange: Exchange, admitted: Admitted, body: bytes | LongBody, deadline: float
    ) -> ScoringRequest:
        """Return what the dispatcher takes; the body is here, and what comes next is waiting for a replica."""
        route, entity, content_type = admitted
        exchange.trace.admitted(route.name, entity.name, exchange.request_id, len(body))
        return ScoringRequest(
            entity.served_entity_id,
            content_type,
            exchange.request_id,
            body,
            deadline,
            exchange.trace,
            stream_gap=route.timeout_seconds,
            stream_seconds=route.max_stream_seconds,
        )

    def refused(self, exchange: Exchange, error: ServeryError) -> Answer:
        """Return the answer an error becomes, and count it."""
        self._rejections.count(self._endpoint_id(exchange), error)
        return error_answer(error)

    def ended(self, exchange: Exchange, status: int, reason: str, *, at: float | None = None) -> None:
        """Record the end; ``at`` (on ``time.perf_counter``) when the answer was ready earlier than now."""
        exchange.trace.ended(status)
        if exchange.meter is not None:
            latency_ms = ((time.perf_counter() if at is None else at) - exchange.began) * 1000
            exchange.meter.record(
                status, latency_ms, queue_ms=exchange.queue_ms, predict_ms=exchange.predict_ms
            )
            if exchange.trace.is_recorded:
                exchange.meter.exemplify(
                    exchange.trace.trace_id, latency_ms, exchange.queue_ms, exchange.predict_ms
                )
        if status >= 400:
            self._failures.note(
                status,
                reason,
                endpoint=exchange.target.endpoint,
                request_id=exchange.request_id,
                trace_id=exchange.trace.trace_id,
            )

    def _endpoint_id(self, exchange: Exchange) -> str:
        """Return the id of the endpoint the caller named, if it is one of their workspace's."""
        if exchange.identity is None:
            return NO_ENDPOINT
        name = (exchange.identity.workspace_id, exchange.target.endpoint)
        route = self._table.snapshot.by_name.get(name)
        return NO_ENDPOINT if route is None else route.endpoint_id
