"""What a gateway tells its operator, read at the time of a scrape from what is counted anyway.

A scrape comes in a thread of its own: all that is read here are numbers and immutable snapshots, and collections are
copied in one step before they are gone through. Served entities that never had a request are left out of the
histograms, or ten thousand idle endpoints would cost each scrape half a million lines.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from servery_common.contracts.metrics import LATENCY_BUCKETS_MS
from servery_common.contracts.routes import EndpointRoute
from servery_common.metric_families import add_histogram, gauge, single
from servery_gateway.dispatcher import Dispatcher
from servery_gateway.loop_lag import LoopLag
from servery_gateway.rejections import NO_ENDPOINT, Rejections
from servery_gateway.request_body import BodyBudget
from servery_gateway.request_meter import EntityCounts, RequestMeters
from servery_gateway.routing_table import RoutingTable

BOUNDS = tuple(bound / 1000 for bound in LATENCY_BUCKETS_MS)
ENDPOINT = ("workspace", "endpoint")
ENTITY = (*ENDPOINT, "served_entity", "served_entity_id")
"""With the id, for a name may be that of two: of the old version and the new one while a rollout moves traffic."""


class _Entity(NamedTuple):
    labels: tuple[str, str, str, str]
    id: str
    counts: EntityCounts


class GatewayMetrics(Collector):
    """``connections`` returns how many clients are connected, ``why_not_ready`` why no work should come, or None."""

    def __init__(
        self,
        table: RoutingTable,
        meters: RequestMeters,
        rejections: Rejections,
        dispatcher: Dispatcher,
        bodies: BodyBudget,
        lag: LoopLag,
        connections: Callable[[], int],
        why_not_ready: Callable[[], str | None],
    ) -> None:
        self._table = table
        self._meters = meters
        self._rejections = rejections
        self._dispatcher = dispatcher
        self._bodies = bodies
        self._lag = lag
        self._connections = connections
        self._why_not_ready = why_not_ready

    def collect(self) -> Iterable[Metric]:
        """Implement Collector."""
        routes = self._table.snapshot.routes
        entities = list(self._entities(routes.values()))
        yield self._requests(entities)
        yield self._durations(entities)
        yield self._rejected(routes)
        yield from self._loads(entities)
        yield from self._process(len(routes))

    def _entities(self, routes: Iterable[EndpointRoute]) -> Iterator[_Entity]:
        for route in routes:
            for entity in route.served_entities:
                meter = self._meters.of(entity.served_entity_id)
                if meter is not None:
                    labels = (route.workspace_id, route.name, entity.name, entity.served_entity_id)
                    yield _Entity(labels, entity.served_entity_id, meter.look())

    def _requests(self, entities: Iterable[_Entity]) -> Metric:
        family = CounterMetricFamily(
            "servery_gateway_requests",
            "Requests answered, by the class of the status that the client got.",
            labels=(*ENTITY, "status"),
        )
        for labels, _, counts in entities:
            failed = counts.client_errors + counts.server_errors
            family.add_metric((*labels, "2xx"), counts.requests - failed)
            family.add_metric((*labels, "4xx"), counts.client_errors)
            family.add_metric((*labels, "5xx"), counts.server_errors)
        return family

    def _durations(self, entities: Iterable[_Entity]) -> Metric:
        family = Metric(
            "servery_gateway_request_duration_seconds",
            "From a request's headers to its answer (total), and of it the wait for a replica (queue) and the model's"
            " own time (predict).",
            "histogram",
        )
        for labels, _, counts in entities:
            if not counts.requests:
                continue
            for phase, measured in counts.phases.items():
                named = {**dict(zip(ENTITY, labels, strict=True)), "phase": phase}
                total = measured.sum_ms / 1000
                add_histogram(family, named, BOUNDS, measured.counts, total, measured.exemplars)
        return family

    def _rejected(self, routes: Mapping[str, EndpointRoute]) -> Metric:
        family = CounterMetricFamily(
            "servery_gateway_rejections",
            "Requests answered with an error of Servery's instead of the model's answer; no endpoint: the caller or the"
            " endpoint was unknown.",
            labels=(*ENDPOINT, "reason"),
        )
        for endpoint_id, counts in self._rejections.look():
            route = routes.get(endpoint_id)
            if route is None and endpoint_id != NO_ENDPOINT:
                continue
            labels = ("", "") if route is None else (route.workspace_id, route.name)
            for reason, count in counts:
                family.add_metric((*labels, reason), count)
        return family

    def _loads(self, entities: Iterable[_Entity]) -> Iterator[Metric]:
        pools = [(e.labels, pool) for e in entities if (pool := self._dispatcher.pool(e.id)) is not None]
        yield gauge(
            "servery_gateway_requests_in_flight",
            "Requests at replicas now.",
            ENTITY,
            ((labels, pool.load.in_flight) for labels, pool in pools),
        )
        yield gauge(
            "servery_gateway_requests_queued",
            "Requests that wait for a replica now, the held ones included.",
            ENTITY,
            ((labels, pool.load.queued) for labels, pool in pools),
        )
        yield gauge(
            "servery_gateway_requests_held",
            "Requests that wait for the first replica of a served entity at zero.",
            ENTITY,
            ((labels, pool.load.queued if pool.holding else 0) for labels, pool in pools),
        )
        yield gauge(
            "servery_gateway_slots",
            "Requests that the replicas this gateway knows take at a time.",
            ENTITY,
            ((labels, pool.policy.slots) for labels, pool in pools),
        )

    def _process(self, routes: int) -> Iterator[Metric]:
        yield single("servery_gateway_routes", "Endpoints this gateway routes to.", routes)
        yield single("servery_gateway_client_connections", "Clients connected now.", self._connections())
        yield single("servery_gateway_body_bytes", "Bodies held now.", self._bodies.held)
        yield single("servery_gateway_body_bytes_limit", "Most bodies it may hold.", self._bodies.limit)
        yield single(
            "servery_gateway_overloaded",
            "Whether new requests are refused because the event loop stays late.",
            float(self._lag.too_long),
        )
        yield single(
            "servery_gateway_ready", "Whether it can take work.", float(self._why_not_ready() is None)
        )
