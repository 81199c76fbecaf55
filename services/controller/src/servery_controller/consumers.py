"""What the controller hears: build events, scale requests, metrics. Hands them on; decides nothing."""

from collections.abc import Callable

from servery_common.contracts import subjects
from servery_common.contracts.builds import BuildFailed, BuildStarted, BuildSucceeded
from servery_common.contracts.metrics import GatewayMetrics
from servery_common.contracts.scaling import ScaleAnswer, ScaleRequest
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


class ScaleRequests:
    """The scaler's wishes, clamped to what the served entity allows."""

    def __init__(self, pool: Pool, hints: Hints) -> None:
        self._pool = pool
        self._hints = hints

    async def handle(self, request: ScaleRequest) -> ScaleAnswer:
        """Set the replica count. Repeating it changes nothing."""
        scaled = await store.set_desired_replicas(
            self._pool, request.served_entity_id, request.desired_replicas
        )
        if scaled is None:
            return ScaleAnswer(accepted=False)
        endpoint_id, desired = scaled
        self._hints.add(endpoint_id)
        return ScaleAnswer(accepted=True, desired_replicas=desired)


class MetricsReports:
    """What gateways measured, written into the book."""

    def __init__(self, book: MetricsBook, clock: Callable[[], float]) -> None:
        self._book = book
        self._clock = clock

    async def heard(self, report: GatewayMetrics) -> None:
        """Take a report in."""
        self._book.hear(report, self._clock())
