import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client import REGISTRY
from prometheus_client.core import Exemplar, Metric
from prometheus_client.registry import Collector
from tests.infrastructure import free_port
from tests.scraping import matching, scrape, total

from servery_common.metering import NatsMeter, count_stale_write
from servery_common.metric_families import add_histogram
from servery_common.metrics_server import MAX_SCRAPES, MetricsServer, serve_metrics, service_registry


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    server = MetricsServer(service_registry("test"), "127.0.0.1", free_port())
    yield server
    server.close()


class Slow(Collector):
    """Shows one histogram with an exemplar."""

    def collect(self) -> Iterator[Metric]:
        family = Metric("servery_slow_seconds", "Slow.", "histogram")
        add_histogram(
            family, {"a": "b"}, (0.1, 1.0), [1, 2, 3], 9.5, {1: Exemplar({"trace_id": "t1"}, 0.4, 17.0)}
        )
        yield family


def test_a_process_shows_itself_and_what_all_services_count(server: MetricsServer) -> None:
    before = total(scrape(server.port), "servery_stale_writes_refused_total", fence="lease")
    count_stale_write("lease")
    samples = scrape(server.port)
    assert total(samples, "servery_stale_writes_refused_total", fence="lease") == before + 1
    assert total(samples, "servery_service_info", service="test") == 1
    assert total(samples, "process_resident_memory_bytes") > 1e6


def test_who_does_not_ask_for_openmetrics_gets_prometheus_own_text(server: MetricsServer) -> None:
    answer = httpx.get(f"http://127.0.0.1:{server.port}/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert 'servery_service_info{service="test"} 1.0' in answer.text


def test_a_histogram_comes_with_the_trace_of_a_recent_request() -> None:
    registry = service_registry("test")
    registry.register(Slow())
    server = MetricsServer(registry, "127.0.0.1", free_port())
    try:
        samples = scrape(server.port)
    finally:
        server.close()
    buckets = {one.labels["le"]: one for one in matching(samples, "servery_slow_seconds_bucket", a="b")}
    assert {bound: one.value for bound, one in buckets.items()} == {"0.1": 1, "1.0": 3, "+Inf": 6}
    assert total(samples, "servery_slow_seconds_sum") == 9.5
    exemplar = buckets["1.0"].exemplar
    assert exemplar is not None
    assert (exemplar.labels, exemplar.value) == ({"trace_id": "t1"}, 0.4)


def test_scrapers_that_send_nothing_keep_no_more_than_their_number_from_being_answered(
    server: MetricsServer,
) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(MAX_SCRAPES - 1)]
    try:
        began = time.monotonic()
        scrape(server.port)
        assert time.monotonic() - began < 5
    finally:
        for one in silent:
            one.close()


def test_without_a_port_nothing_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVERY_METRICS_PORT", raising=False)
    assert serve_metrics(service_registry("test")) is None


def test_each_process_of_a_service_has_a_port_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("SERVERY_METRICS_PORT", str(port))
    server = serve_metrics(service_registry("test"), process=2)
    assert server is not None
    server.close()
    assert server.port == port + 1


def test_a_port_that_is_taken_is_said(monkeypatch: pytest.MonkeyPatch, server: MetricsServer) -> None:
    monkeypatch.setenv("SERVERY_METRICS_PORT", str(server.port))
    with pytest.raises(OSError, match="choose another SERVERY_METRICS_PORT"):
        serve_metrics(service_registry("test"))


def test_a_connection_to_nats_says_whether_it_is_up_and_how_often_it_was_lost() -> None:
    def shown(name: str) -> float:
        return REGISTRY.get_sample_value(name, {"connection": "bus"}) or 0.0

    meter = NatsMeter("bus")
    losses, errors = shown("servery_nats_connection_losses_total"), shown("servery_nats_errors_total")
    meter.connected()
    assert shown("servery_nats_connected") == 1
    meter.lost()
    meter.failed()
    assert shown("servery_nats_connected") == 0
    assert shown("servery_nats_connection_losses_total") == losses + 1
    assert shown("servery_nats_errors_total") == errors + 1
