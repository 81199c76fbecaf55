"""An endpoint's metrics in the names and meanings of Databricks, as Prometheus reads them. Pure.

Despite their names the ``…_total`` series are gauges: values of the last minute, or of this moment. Only
``requests_rejected_total`` and ``shadow_answers_total``, which are Servery's own, are counters.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from servery_common.contracts.metrics import LATENCY_BUCKETS_MS, Histogram
from servery_common.contracts.replicas import ReplicaObservation
from servery_common.contracts.states import ReplicaState
from servery_controller.domain.metrics_book import EntityTotals, Histograms

ENTITY_LABELS = ("endpoint_name", "served_entity_name")
REPLICA_LABELS = (*ENTITY_LABELS, "replica")
GATEWAY_LABELS = (*ENTITY_LABELS, "gateway")
REJECTION_LABELS = ("endpoint_name", "reason", "gateway")
SHADOW_LABELS = (*ENTITY_LABELS, "result", "gateway")
SHADOW_RESULTS = ("same", "different", "failed", "skipped")
BOUNDS = (*map(floatToGoString, LATENCY_BUCKETS_MS), "+Inf")


@dataclass(frozen=True, slots=True)
class EntityView:
    """A served entity and what is known of it now."""

    name: str
    totals: EntityTotals
    replicas: Sequence[ReplicaObservation]


def exposition(
    endpoint: str, entities: Sequence[EntityView], rejections: Mapping[str, Mapping[str, int]], accept: str
) -> tuple[bytes, str]:
    """Return the text and its content type: OpenMetrics for those who ask for it, else Prometheus' own format."""
    encode, content_type = choose_encoder(accept)
    return encode(_Families(endpoint, entities, rejections)), content_type


class _Families(Collector):
    def __init__(
        self, endpoint: str, entities: Sequence[EntityView], rejections: Mapping[str, Mapping[str, int]]
    ) -> None:
        self._endpoint = endpoint
        self._rejections = rejections
        self._entities = entities

    def collect(self) -> Iterable[Metric]:
        yield from self._replica_gauges()
        yield from self._entity_gauges()
        yield from self._histograms()
        yield self._rejected()
        yield self._shadows()

    def _replica_gauges(self) -> Iterator[Metric]:
        cpu = GaugeMetricFamily(
            "cpu_usage_percentage",
            "CPU use of a replica, in percent of what it may use.",
            labels=REPLICA_LABELS,
        )
        memory = GaugeMetricFamily(
            "mem_usage_percentage",
            "Memory use of a replica, in percent of what it may use.",
            labels=REPLICA_LABELS,
        )
        for entity in self._entities:
            measured = [r for r in entity.replicas if r.state is not ReplicaState.STOPPED]
            for replica in measured:
                labels = [self._endpoint, entity.name, replica.replica_id]
                cpu.add_metric(labels, replica.cpu_percent or 0.0)
                memory.add_metric(labels, _memory_percentage(replica))
            if not measured:
                # A monitor that knows only these names still sees that the endpoint is there, and idle.
                cpu.add_metric([self._endpoint, entity.name, ""], 0.0)
                memory.add_metric([self._endpoint, entity.name, ""], 0.0)
        return iter((cpu, memory))

    def _entity_gauges(self) -> Iterator[Metric]:
        series = (
            (
                "provisioned_concurrent_requests_total",
                "Requests that can be worked on at once now.",
                _provisioned,
            ),
            ("request_count_total", "Requests answered in the last minute.", _requests),
            ("request_4xx_count_total", "Requests answered with 4xx in the last minute.", _client_errors),
            ("request_5xx_count_total", "Requests answered with 5xx in the last minute.", _server_errors),
            ("requests_in_flight", "Requests being worked on now.", lambda e: e.totals.in_flight),
            ("requests_queued", "Requests waiting for a replica now.", lambda e: e.totals.queued),
        )
        for name, documentation, value in series:
            family = GaugeMetricFamily(name, documentation, labels=ENTITY_LABELS)
            for entity in self._entities:
                family.add_metric([self._endpoint, entity.name], value(entity))
            yield family

    def _histograms(self) -> Iterator[Metric]:
        series = (
            ("request_latency_ms", "Time from a request to its answer, in milliseconds.", "latency"),
            ("model_queue_time_ms", "Time a request waited for a replica, in milliseconds.", "queue_time"),
            ("model_prediction_latency_ms", "Time the model took to predict, in milliseconds.", "prediction"),
        )
        for name, documentation, field in series:
            family = HistogramMetricFamily(name, documentation, labels=GATEWAY_LABELS)
            for entity in self._entities:
                # An endpoint that no gateway told of is seen, too, as above.
                for gateway, measured in (entity.totals.histograms or {"": Histograms()}).items():
                    histogram: Histogram = getattr(measured, field)
                    cumulative = accumulate(histogram.counts)
                    buckets = list(zip(BOUNDS, map(float, cumulative), strict=True))
                    family.add_metric([self._endpoint, entity.name, gateway], buckets, histogram.sum_ms)
            yield family

    def _shadows(self) -> Metric:
        family = CounterMetricFamily(
            "shadow_answers",
            "Requests that went to a served entity too, beside the one that answered, by what became of them.",
            labels=SHADOW_LABELS,
        )
        for entity in self._entities:
            for gateway, counts in entity.totals.shadows.items():
                for result in SHADOW_RESULTS:
                    count: int = getattr(counts, result)
                    family.add_metric([self._endpoint, entity.name, result, gateway], count)
        return family

    def _rejected(self) -> Metric:
        family = CounterMetricFamily(
            "requests_rejected",
            "Requests that were answered with an error of Servery's own, by reason.",
            labels=REJECTION_LABELS,
        )
        for gateway, counts in self._rejections.items():
            for reason, count in counts.items():
                family.add_metric([self._endpoint, reason, gateway], count)
        return family


def _provisioned(entity: EntityView) -> int:
    return sum(r.slots for r in entity.replicas if r.state is ReplicaState.READY)


def _requests(entity: EntityView) -> int:
    return entity.totals.last_minute.requests


def _client_errors(entity: EntityView) -> int:
    return entity.totals.last_minute.client_errors


def _server_errors(entity: EntityView) -> int:
    return entity.totals.last_minute.server_errors


def _memory_percentage(replica: ReplicaObservation) -> float:
    if replica.memory_bytes is None or not replica.memory_limit_bytes:
        return 0.0
    return round(100 * replica.memory_bytes / replica.memory_limit_bytes, 2)
