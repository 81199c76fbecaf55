from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from servery_common.contracts.metrics import Histogram, RequestCounts
from servery_common.contracts.replicas import ReplicaObservation
from servery_common.contracts.states import ReplicaState
from servery_controller.api.present_metrics import EntityView, exposition
from servery_controller.domain.metrics_book import EntityTotals, Histograms

GAUGES = {
    "cpu_usage_percentage",
    "mem_usage_percentage",
    "provisioned_concurrent_requests_total",
    "request_count_total",
    "request_4xx_count_total",
    "request_5xx_count_total",
}
HISTOGRAMS = {"request_latency_ms", "model_queue_time_ms", "model_prediction_latency_ms"}
FORMATS = pytest.mark.parametrize(
    ("accept", "parse", "content_type"),
    [
        ("", text_string_to_metric_families, "text/plain; version=0.0.4"),
        ("text/plain", text_string_to_metric_families, "text/plain; version=0.0.4"),
        (
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
            openmetrics.text_string_to_metric_families,
            "application/openmetrics-text; version=1.0.0",
        ),
    ],
)


def replica(id: str, state: ReplicaState = ReplicaState.READY, **usage: Any) -> ReplicaObservation:
    return ReplicaObservation(
        replica_id=id, endpoint_id="e1", served_entity_id="s1", state=state, slots=4, **usage
    )


def view(name: str = "iris-1", *replicas: ReplicaObservation, **totals: Any) -> EntityView:
    return EntityView(name, EntityTotals(**totals), replicas)


def samples(views: list[EntityView]) -> dict[tuple[str, ...], float]:
    """Values by name, served entity and, where there is one, bucket or replica."""
    text, _ = exposition("iris", views, {}, "")
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            more = [sample.labels[label] for label in ("le", "replica") if label in sample.labels]
            found[(sample.name, sample.labels["served_entity_name"], *more)] = sample.value
    return found


@FORMATS
def test_both_formats_are_read_by_their_parsers_with_names_and_types(
    accept: str, parse: Any, content_type: str
) -> None:
    text, answered = exposition("iris", [view("iris-1", replica("r1"))], {"g1": {"queue_full": 2}}, accept)
    assert answered.startswith(content_type)
    families = {family.name: family for family in parse(text.decode())}
    assert {name for name, family in families.items() if family.type == "gauge"} >= GAUGES
    assert {name for name, family in families.items() if family.type == "histogram"} == HISTOGRAMS
    assert all(family.documentation for family in families.values())


@FORMATS
def test_names_with_quotes_backslashes_and_line_breaks_survive(
    accept: str, parse: Any, content_type: str
) -> None:
    name = 'a"b\\c\nd'
    text, _ = exposition(name, [view(name)], {}, accept)
    labels = [s.labels for f in parse(text.decode()) for s in f.samples]
    assert {one["endpoint_name"] for one in labels} == {name}
    assert {one["served_entity_name"] for one in labels} == {name}


def test_no_data_is_zero_and_not_absent() -> None:
    found = samples([view()])
    assert {name for (name, *_), value in found.items() if value == 0.0} >= GAUGES
    assert found["request_latency_ms_count", "iris-1"] == 0.0


def test_counts_are_those_of_the_last_minute() -> None:
    counts = RequestCounts(requests=7, client_errors=2, server_errors=1)
    found = samples([view(last_minute=counts)])
    assert found["request_count_total", "iris-1"] == 7
    assert found["request_4xx_count_total", "iris-1"] == 2
    assert found["request_5xx_count_total", "iris-1"] == 1


def test_histograms_are_cumulative() -> None:
    counts = (1, 0, 2, *(0,) * 12, 4)
    found = samples([view(histograms={"g1": Histograms(latency=Histogram(counts=counts, sum_ms=12.5))})])
    buckets = {key[2]: value for key, value in found.items() if key[0] == "request_latency_ms_bucket"}
    assert (buckets["1.0"], buckets["2.5"], buckets["5.0"], buckets["60000.0"]) == (1, 1, 3, 3)
    assert buckets["+Inf"] == found["request_latency_ms_count", "iris-1"] == 7
    assert found["request_latency_ms_sum", "iris-1"] == 12.5


def test_each_gateway_has_series_of_its_own() -> None:
    three, four = (Histograms(latency=Histogram(counts=(n, *(0,) * 15), sum_ms=n)) for n in (3, 4))
    text, _ = exposition("iris", [view(histograms={"g1": three, "g2": four})], {}, "")
    counts = {
        sample.labels["gateway"]: sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == "request_latency_ms_count"
    }
    assert counts == {"g1": 3, "g2": 4}


def test_use_is_told_for_each_replica_and_concurrency_for_those_that_are_ready() -> None:
    found = samples(
        [
            view(
                "iris-1",
                replica("r1", cpu_percent=12.5, memory_bytes=250, memory_limit_bytes=1000),
                replica("r2", ReplicaState.STARTING),
                replica("r3", ReplicaState.STOPPED),
            )
        ]
    )
    assert found["cpu_usage_percentage", "iris-1", "r1"] == 12.5
    assert found["mem_usage_percentage", "iris-1", "r1"] == 25.0
    assert found["cpu_usage_percentage", "iris-1", "r2"] == 0.0
    assert ("cpu_usage_percentage", "iris-1", "r3") not in found
    assert found["provisioned_concurrent_requests_total", "iris-1"] == 4


def test_what_was_refused_is_counted_by_reason_and_gateway() -> None:
    refused = {"g1": {"queue_full": 2, "permission": 1}, "g2": {"queue_full": 3}}
    text, _ = exposition("iris", [view()], refused, "")
    (family,) = (one for one in text_string_to_metric_families(text.decode()) if "rejected" in one.name)
    assert family.type == "counter"
    assert {
        (sample.labels["endpoint_name"], sample.labels["reason"], sample.labels["gateway"]): sample.value
        for sample in family.samples
    } == {
        ("iris", "queue_full", "g1"): 2,
        ("iris", "permission", "g1"): 1,
        ("iris", "queue_full", "g2"): 3,
    }
