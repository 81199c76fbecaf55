"""What the builder tells its operator."""

from collections.abc import Iterator, Mapping

from prometheus_client import Counter, Histogram
from prometheus_client.core import Metric

from servery_builder.domain.build import Failure, Success
from servery_common.contracts.builds import FailureCode
from servery_common.metric_families import gauge, single

Open = Mapping[str, tuple[int, float]]
"""Builds that have not ended, and the seconds the oldest has waited, by state."""

_BUCKETS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)

phase_duration = Histogram(
    "servery_builder_phase_duration_seconds", "Time of one phase of a build.", ["phase"], buckets=_BUCKETS
)
_duration = Histogram(
    "servery_builder_build_duration_seconds",
    "Builds that succeeded, by whether the environment was there already.",
    ["environment"],
    buckets=_BUCKETS,
)
_builds = Counter("servery_builder_builds", "Builds that ended in this builder, by how.", ["result"])
_failures = Counter("servery_builder_build_failures", "Builds that failed, by why.", ["code"])

for _result in ("succeeded", "failed"):
    _builds.labels(_result)
for _code in FailureCode:
    _failures.labels(_code.value)
for _phase in ("resolve", "fetch", "environment", "image", "verify", "publish"):
    phase_duration.labels(_phase)
for _environment in ("cached", "made"):
    _duration.labels(_environment)


def count_result(result: Success | Failure) -> None:
    """A build has ended, and its result is stored."""
    if isinstance(result, Success):
        _builds.labels("succeeded").inc()
        _duration.labels("cached" if result.environment_cached else "made").observe(result.seconds)
    else:
        _builds.labels("failed").inc()
        _failures.labels(result.code.value).inc()


def present_open(builds: Open) -> Iterator[Metric]:
    """Return the builds that have not ended, as Prometheus has them."""
    states = ("QUEUED", "BUILDING")
    yield gauge(
        "servery_builder_open_builds",
        "Builds that wait for a builder (queued) or are being made (building), of all builders together.",
        ("state",),
        (((state.lower(),), builds.get(state, (0, 0.0))[0]) for state in states),
    )
    yield single(
        "servery_builder_queue_oldest_seconds",
        "How long the build that was ordered first has waited for a builder.",
        builds.get("QUEUED", (0, 0.0))[1],
    )
