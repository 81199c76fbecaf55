"""What panels ask Prometheus."""

from collections.abc import Iterable
from dataclasses import dataclass

RATE = "$__rate_interval"
QUANTILES = (("0.5", "p50"), ("0.95", "p95"), ("0.99", "p99"))


@dataclass(frozen=True)
class Query:
    """One query and what its series are called."""

    expression: str
    legend: str


def within(selector: str) -> str:
    """Return a selector as it stands behind a metric's name: nothing selects nothing."""
    return f"{{{selector}}}" if selector else ""


def quantiles(metric: str, selector: str = "", by: Iterable[str] = (), legend: str = "") -> list[Query]:
    """Return the percentiles of a histogram, of each group in ``by``."""
    grouped = ", ".join(("le", *by))
    return [
        Query(
            f"histogram_quantile({q}, sum by ({grouped}) (rate({metric}_bucket{{{selector}}}[{RATE}])))",
            f"{legend} {name}".strip(),
        )
        for q, name in QUANTILES
    ]


def rate(metric: str, selector: str, by: str, legend: str) -> Query:
    """Return how fast a counter grows, each second."""
    return Query(f"sum by ({by}) (rate({metric}{{{selector}}}[{RATE}]))", legend)


def quantile(q: float, metric: str, by: str) -> Query:
    """Return one percentile of a histogram, of each value of the label ``by``."""
    return Query(
        f"histogram_quantile({q}, sum by (le, {by}) (rate({metric}_bucket[{RATE}])))", f"{{{{{by}}}}}"
    )
