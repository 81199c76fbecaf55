"""What the controller hears: build events, metrics. Hands them on; decides nothing."""

from collections.abc import Callable

from servery_common.contracts import subjects
from servery_common.contracts.builds import BuildFailed, BuildStarted, BuildSucceeded
from servery_common.contracts.metrics import GatewayMetrics
from servery_common.messaging.port import Bus
from servery_common.postgres.pool import Pool
from servery_controller.domain.metrics_book import MetricsBook
from servery_controller.endpoints import store
from servery_controller.reconcile.hints import Hints


class BuildEvents:
    """Build events only say which endpoint to look at: the reconciler asks the builder for the state."""

    def __init__(self, pool: Pool, bus: Bus, hints: Hints) -> None:
        self._pool = pool
        self._bus = bus
        self._hints = hints

    async def run(self) -> None:
        """Consume for ever."""
        await self._bus.consume(
            subjects.EVENTS_STREAM,
            subjects.CONTROLLER_EVENTS_DURABLE,
            subjects.ALL_BUILD_EVENTS,
            {BuildStarted: self._heard, BuildSucceeded: self._heard, BuildFailed: self._heard},
        )

    async def _heard(self, event: BuildStarted | BuildSucceeded | BuildFailed) -> None:
        endpoint_id = await store.endpoint_of_build(self._pool, event.build_id)
        if endpoint_id is not None:
            self._hints.add(endpoint_id)


class MetricsReports:
    """What gateways measured, written into the book."""

    def __init__(self, book: MetricsBook, clock: Callable[[], float]) -> None:
        self._book = book
        self._clock = clock

    async def heard(self, report: GatewayMetrics) -> None:
        """Take a report in."""
        self._book.hear(report, self._clock())
