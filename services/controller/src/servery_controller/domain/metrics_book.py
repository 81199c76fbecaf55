"""What all gateways measured, added up per served entity. Pure: the time is an argument.

Gateways tell their totals every two seconds, so a controller that has just started knows everything of the living ones
after that time. Counts of the last minute are the gateways' own; a gateway that has been silent for ``SILENT_SECONDS``
is not counted among them. Histograms only ever grow, as scrapers expect of them, so what a gateway measured
stays in them after it is gone: as its own for ``REMEMBERED_SECONDS``, in case it was only cut off and returns, then in
one sum. They begin again at a lower value, which scrapers take for the reset it is, only when a controller starts after
a gateway ended: a sum of gone gateways is nowhere but in memory.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from servery_common.contracts.metrics import EntityMetrics, GatewayMetrics, Histogram, RequestCounts

SILENT_SECONDS = 10.0
"""Five reports that did not come."""
REMEMBERED_SECONDS = 3600.0
TIDY_SECONDS = 60.0


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
    histograms: Histograms = field(default_factory=Histograms)


class _Report(NamedTuple):
    heard_at: float
    metrics: EntityMetrics

    @property
    def histograms(self) -> Histograms:
        return Histograms(self.metrics.latency, self.metrics.queue_time, self.metrics.prediction)


@dataclass(slots=True)
class _Entity:
    reports: dict[str, _Report] = field(default_factory=dict[str, _Report])
    """The last one of each gateway."""
    departed: Histograms = field(default_factory=Histograms)
    """The sum of gateways, or of lives of a meter in a gateway, that will not report any more."""


class MetricsBook:
    """Listens to gateways and knows the totals."""

    def __init__(self) -> None:
        self._entities: dict[str, _Entity] = {}
        self._tidied_at = 0.0

    def hear(self, report: GatewayMetrics, now: float) -> None:
        """Take the report of a gateway in. A lost one is made up for by the next."""
        for metrics in report.entities:
            entity = self._entities.setdefault(metrics.served_entity_id, _Entity())
            known = entity.reports.get(report.gateway_id)
            if known is not None and _observed(metrics.latency) < _observed(known.metrics.latency):
                # The gateway's route was gone for a while, and its counters with it.
                entity.departed = _sum([entity.departed, known.histograms])
            entity.reports[report.gateway_id] = _Report(now, metrics)
        if now - self._tidied_at >= TIDY_SECONDS:
            self._tidied_at = now
            self._tidy(now - REMEMBERED_SECONDS)

    def totals(self, served_entity_id: str, now: float) -> EntityTotals:
        """Return what is known of a served entity; all zero when nothing is."""
        entity = self._entities.get(served_entity_id)
        if entity is None:
            return EntityTotals()
        present = [
            report.metrics for report in entity.reports.values() if now - report.heard_at <= SILENT_SECONDS
        ]
        return EntityTotals(
            last_minute=RequestCounts(
                requests=sum(m.last_minute.requests for m in present),
                client_errors=sum(m.last_minute.client_errors for m in present),
                server_errors=sum(m.last_minute.server_errors for m in present),
            ),
            in_flight=sum(m.in_flight for m in present),
            queued=sum(m.queued for m in present),
            histograms=_sum([entity.departed, *(r.histograms for r in entity.reports.values())]),
        )

    def _tidy(self, heard_before: float) -> None:
        for served_entity_id, entity in list(self._entities.items()):
            gone = [gateway for gateway, report in entity.reports.items() if report.heard_at < heard_before]
            if len(gone) == len(entity.reports):
                # No gateway routes to it any more: it was updated away or deleted.
                del self._entities[served_entity_id]
                continue
            ended = [entity.reports.pop(gateway).histograms for gateway in gone]
            entity.departed = _sum([entity.departed, *ended])


def _observed(histogram: Histogram) -> int:
    return sum(histogram.counts)


def _sum(parts: list[Histograms]) -> Histograms:
    return Histograms(*(_add(column) for column in zip(*parts, strict=True)))


def _add(histograms: Iterable[Histogram]) -> Histogram:
    every = list(histograms)
    return Histogram(
        # A gateway of another release with other buckets: the shorter list decides, nothing fails.
        counts=tuple(map(sum, zip(*(h.counts for h in every), strict=False))),
        sum_ms=sum(h.sum_ms for h in every),
    )
