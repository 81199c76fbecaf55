"""What the scaler tells its operator."""

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import Counter, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from servery_common.metric_families import gauge, single

Desired = tuple[tuple[str, str, str, str], int, int]
"""Workspace, endpoint, served entity and its id; the replicas decided on, and those the route has."""

tick_duration = Histogram(
    "servery_scaler_tick_duration_seconds",
    "Time for one round of decisions, in which nothing else is decided.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)
decisions = Counter("servery_scaler_decisions", "Decisions made, by what they change.", ["direction"])
requests = Counter(
    "servery_scaler_requests",
    "Requests to the controller for another replica count, by their answer.",
    ["answer"],
)
for _direction in ("up", "down", "none"):
    decisions.labels(_direction)
for _answer in ("accepted", "declined", "failed"):
    requests.labels(_answer)


class ScalerMetrics(Collector):
    """``desired`` returns what was last decided of each served entity, ``gateways`` how many gateways report."""

    def __init__(self, desired: Callable[[], Sequence[Desired]], gateways: Callable[[], int]) -> None:
        self._desired = desired
        self._gateways = gateways

    def collect(self) -> Iterable[Metric]:
        """Implement Collector."""
        labels = ("workspace", "endpoint", "served_entity", "served_entity_id")
        desired = self._desired()
        yield gauge(
            "servery_scaler_desired_replicas",
            "Replicas that were last decided on.",
            labels,
            ((names, decided) for names, decided, _ in desired),
        )
        yield gauge(
            "servery_scaler_routed_desired_replicas",
            "Replicas that the controller aims at, as the route says.",
            labels,
            ((names, routed) for names, _, routed in desired),
        )
        yield single("servery_scaler_gateways", "Gateways that report their load.", self._gateways())
