import pytest

from servery_common.contracts.metrics import LATENCY_BUCKETS_MS, EntityMetrics
from servery_common.contracts.routes import EndpointRoute, ServedEntityRoute
from servery_gateway.request_meter import EntityMeter, RequestMeters
from servery_gateway.routing_table import Change


def read(meter: EntityMeter, now: float) -> EntityMetrics:
    return meter.read(now, in_flight=0, queued=0)


def route(endpoint_id: str, *entities: str) -> EndpointRoute:
    return EndpointRoute(
        endpoint_id=endpoint_id,
        workspace_id="1",
        name=endpoint_id,
        status="serving",
        served_entities=tuple(
            ServedEntityRoute(served_entity_id=one, name=one, traffic_percentage=100) for one in entities
        ),
    )


def test_answers_are_counted_by_their_status() -> None:
    meter = EntityMeter("s1", set())
    for status in (200, 200, 400, 429, 503):
        meter.record(status, 1.0)
    counts = read(meter, 10.0).last_minute
    assert (counts.requests, counts.client_errors, counts.server_errors) == (5, 2, 1)


def test_a_duration_is_in_the_bucket_that_ends_with_it_or_next_above() -> None:
    meter = EntityMeter("s1", set())
    for milliseconds in (0.0, 1.0, 1.1, 60_000.0, 60_000.1):
        meter.record(200, milliseconds)
    latency = read(meter, 0.0).latency
    assert latency.counts[:2] == (2, 1)
    assert latency.counts[-2:] == (1, 1)
    assert sum(latency.counts) == 5
    assert latency.sum_ms == pytest.approx(120_002.2)


def test_stages_a_request_did_not_reach_are_not_recorded() -> None:
    meter = EntityMeter("s1", set())
    meter.record(429, 1.0)
    meter.record(503, 40.0, queue_ms=3.0)
    meter.record(200, 9.0, queue_ms=0.0, predict_ms=8.0)
    metrics = read(meter, 0.0)
    totals = [sum(h.counts) for h in (metrics.latency, metrics.queue_time, metrics.prediction)]
    assert totals == [3, 2, 1]
    assert metrics.prediction.counts[LATENCY_BUCKETS_MS.index(10.0)] == 1


def test_the_last_minute_forgets_what_is_older_and_the_histograms_do_not() -> None:
    meter = EntityMeter("s1", set())
    counted: dict[float, int] = {}
    for now in range(0, 200, 2):
        if now == 50:
            meter.record(200, 1.0)
            meter.record(500, 1.0)
        counted[now] = read(meter, float(now)).last_minute.requests
    assert {now for now, requests in counted.items() if requests == 2} == set(range(50, 110, 2))
    assert sum(read(meter, 200.0).latency.counts) == 2
    assert read(meter, 202.0).last_minute.server_errors == 0


def test_after_a_pause_of_reading_nothing_is_counted_twice() -> None:
    meter = EntityMeter("s1", set())
    read(meter, 0.0)
    meter.record(200, 1.0)
    assert read(meter, 500.0).last_minute.requests == 1
    assert read(meter, 502.0).last_minute.requests == 1
    assert read(meter, 560.0).last_minute.requests == 0


def test_a_served_entity_that_stays_in_the_routes_keeps_its_counters() -> None:
    meters = RequestMeters()
    first, second = route("e1", "a", "b"), route("e1", "a")
    meters.follow([Change("e1", None, first)])
    kept = meters.of("a")
    meters.follow([Change("e1", first, second), Change("e2", None, route("e2", "c"))])
    assert meters.of("a") is kept
    assert meters.of("b") is None
    assert meters.of("c") is not None
    meters.follow([Change("e1", second, None)])
    assert meters.of("a") is None
