"""What collectors of several services make their families with."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import Exemplar, GaugeMetricFamily, Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString


def gauge(
    name: str, documentation: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], float]]
) -> GaugeMetricFamily:
    """Return a gauge with these samples: label values, and the value."""
    family = GaugeMetricFamily(name, documentation, labels=labels)
    for values, value in samples:
        family.add_metric(list(values), value)
    return family


def single(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    """Return a gauge without labels."""
    return GaugeMetricFamily(name, documentation, value=value)


def add_histogram(
    family: Metric,
    labels: Mapping[str, str],
    bounds: Sequence[float],
    counts: Sequence[int],
    total: float,
    exemplars: Mapping[int, Exemplar] | None = None,
) -> None:
    """Add one histogram to a family of type ``histogram``.

    ``counts`` has one number for each bound and one for what is above, not cumulative; ``total`` is the sum of what
    was measured. ``exemplars``: a recent measurement, by the number of its bucket.
    """
    cumulative = 0
    for at, cumulative in enumerate(accumulate(counts)):
        bound = floatToGoString(bounds[at]) if at < len(bounds) else "+Inf"
        exemplar = exemplars.get(at) if exemplars else None
        family.samples.append(
            Sample(f"{family.name}_bucket", {**labels, "le": bound}, float(cumulative), exemplar=exemplar)
        )
    family.samples.append(Sample(f"{family.name}_count", dict(labels), float(cumulative)))
    family.samples.append(Sample(f"{family.name}_sum", dict(labels), total))
