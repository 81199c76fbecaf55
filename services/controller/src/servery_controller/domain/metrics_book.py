"""What all gateways measured, per served entity. Pure: the time is an argument.

Gateways tell the totals of a served entity every two seconds as long as it had a request in the last minute, then once
with zeros, and from then on about once a minute. So each controller knows the same of those that are in use, and one
that has just started does so after that time, of the idle ones after a minute. Counts of the last minute and of this
moment are added up over the gateways; what a gateway has not told for ``SILENT_SECONDS`` is not counted: either it is
zero, or the gateway is gone.

Histograms are not added up: each gateway's stay its own and only ever grow, as scrapers expect of a series. A sum would
go back whenever it loses a gateway, and two controllers of which one is older would answer different sums in turn.
Those of a gateway that has gone are kept for ``REMEMBERED_SECONDS``, so that the next scrape sees the last it counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from servery_common.contracts.metrics import (
    EntityMetrics,
    GatewayMetrics,
    Histogram,
    RequestCounts,
    ShadowComparisons,
)
from servery_controller.domain.endpoint import EntityHealth

SILENT_SECONDS = 10.0
"""Five reports that did not come."""
REMEMBERED_SECONDS = 300.0
"""Longer than the usual scrape intervals, and several times what a gateway takes to tell of an idle served entity."""
TIDY_SECONDS = 60.0

BUCKETS = len(Histogram().counts)


class Histograms(NamedTuple):
    """What is measured in milliseconds."""

    latency: Histogram = Histogram()
    queue_time: Histogram = Histogram()
    prediction: Histogram = Histogram()


@dataclass(frozen=True, slots=True)
class EntityTotals:
    """One served entity in all gateways."""

    last_minute: RequestCounts = field(default_factory=RequestCounts)
    in_flight: int = 0
    queued: int = 0
    histograms: Mapping[str, Histograms] = field(default_factory=dict[str, Histograms])
    """By gateway id."""
    shadows: Mapping[str, ShadowComparisons] = field(default_factory=dict[str, ShadowComparisons])
    """By gateway id."""


class _Report(NamedTuple):
    heard_at: float
    metrics: EntityMetrics

    @property
    def histograms(self) -> Histograms:
        return Histograms(self.metrics.latency, self.metrics.queue_time, self.metrics.prediction)


class MetricsBook:
    """Listens to gateways and knows what they measured."""

    def __init__(self) -> None:
        self._reports: dict[str, dict[str, _Report]] = {}
        """The last one of each gateway, by served entity."""
        self._rejections: dict[str, dict[str, tuple[float, Mapping[str, int]]]] = {}
        """When each gateway told what it had refused, and its counts by reason, by endpoint id."""
        self._shadows: dict[str, dict[str, tuple[float, ShadowComparisons]]] = {}
        """When each gateway told what became of copies, and that, by served entity id."""
        self._tidied_at = 0.0

    def hear(self, report: GatewayMetrics, now: float) -> None:
        """Take the report of a gateway in. A lost one is made up for by the next."""
        for metrics in report.entities:
            reports = self._reports.setdefault(metrics.served_entity_id, {})
            reports[report.gateway_id] = _Report(now, metrics)
        for shadow in report.shadows:
            of_entity = self._shadows.setdefault(shadow.served_entity_id, {})
            of_entity[report.gateway_id] = (now, shadow)
        for refused in report.rejections:
            of_endpoint = self._rejections.setdefault(refused.endpoint_id, {})
            of_endpoint[report.gateway_id] = (now, refused.counts)
        if now - self._tidied_at >= TIDY_SECONDS:
            self._tidied_at = now
            self._tidy(now - REMEMBERED_SECONDS)

    def totals(self, served_entity_id: str, now: float) -> EntityTotals:
        """Return what is known of a served entity; all zero when nothing is."""
        reports = self._reports.get(served_entity_id, {})
        present = [report.metrics for report in reports.values() if now - report.heard_at <= SILENT_SECONDS]
        return EntityTotals(
            last_minute=RequestCounts(
                requests=sum(m.last_minute.requests for m in present),
                client_errors=sum(m.last_minute.client_errors for m in present),
                server_errors=sum(m.last_minute.server_errors for m in present),
            ),
            in_flight=sum(m.in_flight for m in present),
            queued=sum(m.queued for m in present),
            histograms={
                gateway: report.histograms
                for gateway, report in reports.items()
                if now - report.heard_at <= REMEMBERED_SECONDS and _has_our_buckets(report.histograms)
            },
            shadows={
                gateway: told
                for gateway, (heard_at, told) in self._shadows.get(served_entity_id, {}).items()
                if now - heard_at <= REMEMBERED_SECONDS
            },
        )

    def answered(self, served_entity_id: str, now: float) -> Mapping[str, EntityHealth]:
        """Return what each gateway answered for a served entity since the gateway began, by gateway id.

        And what it has still to answer.
        """
        reports = self._reports.get(served_entity_id, {})
        return {
            gateway: EntityHealth(
                requests=metrics.answered.requests,
                errors=metrics.answered.client_errors + metrics.answered.server_errors,
                total_ms=metrics.latency.sum_ms,
                # A gateway that died with requests under way tells no more of them.
                in_flight=metrics.in_flight + metrics.queued if now - heard_at <= SILENT_SECONDS else 0,
            )
            for gateway, (heard_at, metrics) in reports.items()
        }

    def rejections(self, endpoint_id: str, now: float) -> Mapping[str, Mapping[str, int]]:
        """Return what was refused at an endpoint, by gateway id and reason; remembered as histograms are."""
        return {
            gateway: counts
            for gateway, (heard_at, counts) in self._rejections.get(endpoint_id, {}).items()
            if now - heard_at <= REMEMBERED_SECONDS
        }

    def _tidy(self, heard_before: float) -> None:
        # What no gateway tells of any more was updated away or deleted.
        for served_entity_id, reports in list(self._reports.items()):
            kept = {gateway: report for gateway, report in reports.items() if report.heard_at >= heard_before}
            if kept:
                self._reports[served_entity_id] = kept
            else:
                del self._reports[served_entity_id]
        for served_entity_id, copies in list(self._shadows.items()):
            recent = {gateway: one for gateway, one in copies.items() if one[0] >= heard_before}
            if recent:
                self._shadows[served_entity_id] = recent
            else:
                del self._shadows[served_entity_id]
        for endpoint_id, told in list(self._rejections.items()):
            remembered = {gateway: one for gateway, one in told.items() if one[0] >= heard_before}
            if remembered:
                self._rejections[endpoint_id] = remembered
            else:
                del self._rejections[endpoint_id]


def _has_our_buckets(histograms: Histograms) -> bool:
    """Whether the gateway is of a release that cuts durations into the same buckets: others would be misread."""
    return all(len(histogram.counts) == BUCKETS for histogram in histograms)
