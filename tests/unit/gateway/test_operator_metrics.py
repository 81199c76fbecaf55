from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from tests.scraping import matching, total

from servery_common.contracts.routes import EndpointRoute, ServedEntityRoute
from servery_common.errors import BadRequest
from servery_gateway.loop_lag import LoopLag
from servery_gateway.operator_metrics import GatewayMetrics
from servery_gateway.rejections import NO_ENDPOINT, Rejections
from servery_gateway.request_body import BodyBudget
from servery_gateway.request_meter import RequestMeters
from servery_gateway.routing_table import Change

REQUESTS = "servery_gateway_requests_total"
DURATIONS = "servery_gateway_request_duration_seconds"


def entity(id: str) -> ServedEntityRoute:
    return ServedEntityRoute(
        served_entity_id=id, name="current", traffic_percentage=50, replicas=(), min_replicas=1, max_replicas=1,
        desired_replicas=1,
    )  # fmt: skip


ROUTE = EndpointRoute(
    endpoint_id="e1",
    workspace_id="w1",
    name="iris",
    created_at_ms=0,
    status="serving",
    served_entities=(entity("old"), entity("new")),
    timeout_seconds=60,
)


class Gateway:
    """The parts that are counted in, and what a strict reader makes of a scrape."""

    def __init__(self) -> None:
        self.meters, self.rejections, self.bodies = RequestMeters(), Rejections(), BodyBudget(100)
        self.meters.follow([Change("e1", None, ROUTE)])
        table: Any = SimpleNamespace(snapshot=SimpleNamespace(routes={"e1": ROUTE}))
        dispatcher: Any = SimpleNamespace(pool=lambda _: None)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(
            GatewayMetrics(
                table,
                self.meters,
                self.rejections,
                dispatcher,
                self.bodies,
                LoopLag(),
                lambda: 3,
                lambda: None,
            )
        )

    def record(self, id: str, status: int, **more: float) -> None:
        meter = self.meters.of(id)
        assert meter is not None
        meter.record(status, 7.0, **more)

    def scrape(self) -> list[Sample]:
        text = generate_latest(self._registry).decode()
        samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
        series = [(one.name, frozenset(one.labels.items())) for one in samples]
        assert len(set(series)) == len(series), "Prometheus would drop one of two"
        return samples


def test_two_versions_of_one_name_are_told_apart() -> None:
    gateway = Gateway()
    gateway.record("old", 200)
    gateway.record("new", 200)
    gateway.record("new", 503)
    gateway.record("new", 404)
    samples = gateway.scrape()
    assert total(samples, REQUESTS, served_entity_id="old") == 1
    statuses = {
        one.labels["status"]: one.value for one in matching(samples, REQUESTS, served_entity_id="new")
    }
    assert statuses == {"2xx": 1, "4xx": 1, "5xx": 1}
    assert total(samples, REQUESTS, workspace="w1", endpoint="iris", served_entity="current") == 4


def test_durations_are_in_seconds_and_only_of_what_came_so_far() -> None:
    gateway = Gateway()
    gateway.record("old", 200, queue_ms=1.0, predict_ms=4.0)
    gateway.record("old", 429)
    samples = gateway.scrape()
    assert total(samples, f"{DURATIONS}_count", phase="total") == 2
    assert total(samples, f"{DURATIONS}_sum", phase="total") == 0.014
    assert total(samples, f"{DURATIONS}_count", phase="predict") == 1
    assert total(samples, f"{DURATIONS}_bucket", phase="predict", le="0.005") == 1
    assert total(samples, f"{DURATIONS}_bucket", phase="predict", le="0.0025") == 0
    assert not list(matching(samples, f"{DURATIONS}_count", served_entity_id="new")), "it never had a request"


def test_the_trace_of_a_sampled_request_is_at_its_bucket() -> None:
    gateway = Gateway()
    meter = gateway.meters.of("old")
    assert meter is not None
    meter.record(200, 7.0)
    meter.exemplify("a" * 32, 7.0, None, None)
    buckets = matching(gateway.scrape(), f"{DURATIONS}_bucket", phase="total", served_entity_id="old")
    seen = {one.labels["le"]: one.exemplar for one in buckets if one.exemplar is not None}
    assert {bound: (one.labels, one.value) for bound, one in seen.items()} == {
        "0.01": ({"trace_id": "a" * 32}, 0.007)
    }


def test_refusals_are_counted_by_reason_also_where_nobody_knows_the_endpoint() -> None:
    gateway = Gateway()
    for endpoint_id in ("e1", NO_ENDPOINT, "deleted"):
        gateway.rejections.count(endpoint_id, BadRequest("no"))
    refused = list(matching(gateway.scrape(), "servery_gateway_rejections_total"))
    assert [(one.labels, one.value) for one in refused] == [
        ({"workspace": "w1", "endpoint": "iris", "reason": "bad_request"}, 1),
        ({"workspace": "", "endpoint": "", "reason": "bad_request"}, 1),
    ]
