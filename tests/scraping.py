"""What a service shows to Prometheus, as numbers."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


def scrape(port: int) -> list[Sample]:
    """All samples of one process, read by the strict parser of OpenMetrics."""
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", headers=OPENMETRICS, timeout=10)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    return [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]


def matching(samples: list[Sample], name: str, **labels: str) -> Iterator[Sample]:
    """Those of one name that have these labels."""
    return (one for one in samples if one.name == name and labels.items() <= one.labels.items())


def total(samples: list[Sample], name: str, **labels: str) -> float:
    """The sum of those."""
    return sum(one.value for one in matching(samples, name, **labels))
