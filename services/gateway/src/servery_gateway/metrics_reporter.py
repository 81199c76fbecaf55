"""Tell the controllers, every two seconds, what was counted of each served entity in this gateway."""

import asyncio
from collections.abc import Callable, Iterator

from servery_common.contracts import subjects
from servery_common.contracts.metrics import EntityMetrics, GatewayMetrics
from servery_common.messaging.port import Bus
from servery_gateway.dispatcher import Dispatcher
from servery_gateway.loop_lag import LoopLag
from servery_gateway.rejections import Rejections
from servery_gateway.request_meter import RequestMeters
from servery_gateway.shadow_tally import ShadowTallies

INTERVAL = 2.0
MAX_ENTITIES = 100
"""Per message: less than 1 KB each, a tenth of NATS' limit of 1 MiB. Requests go on between two messages."""


def take_metrics(
    meters: RequestMeters,
    rejections: Rejections,
    shadows: ShadowTallies,
    lag: LoopLag,
    dispatcher: Dispatcher,
    gateway_id: str,
    now: float,
) -> Iterator[GatewayMetrics]:
    """Make the messages with the totals so far, each when it is asked for.

    In them are the served entities that had a request in the last minute or have one, once more when they no longer
    do, and a few of the others in turn: what is not in a report is as it was.
    """
    for pool in dispatcher.activity.active:
        if pool.load.in_flight or pool.load.queued:
            meters.activity.touch(pool.served_entity_id)
    lag_ms = round(lag.take() * 1000, 1)
    due = meters.activity.due()
    for at in range(0, len(due), MAX_ENTITIES):
        read = (_read(one, meters, dispatcher, now) for one in due[at : at + MAX_ENTITIES])
        yield GatewayMetrics(
            gateway_id=gateway_id,
            loop_lag_ms=lag_ms,
            entities=tuple(metrics for metrics in read if metrics is not None),
        )
    refused = rejections.read()
    for at in range(0, len(refused), MAX_ENTITIES):
        some = tuple(refused[at : at + MAX_ENTITIES])
        yield GatewayMetrics(gateway_id=gateway_id, loop_lag_ms=lag_ms, rejections=some)
    compared = shadows.read()
    for at in range(0, len(compared), MAX_ENTITIES):
        told = tuple(compared[at : at + MAX_ENTITIES])
        yield GatewayMetrics(gateway_id=gateway_id, loop_lag_ms=lag_ms, shadows=told)


def _read(
    served_entity_id: str, meters: RequestMeters, dispatcher: Dispatcher, now: float
) -> EntityMetrics | None:
    meter, pool = meters.of(served_entity_id), dispatcher.pool(served_entity_id)
    if meter is None:
        # Its last requests ended after it had left the route.
        meters.activity.rest(served_entity_id)
        return None
    metrics = meter.read(
        now,
        in_flight=pool.load.in_flight if pool else 0,
        queued=pool.load.queued if pool else 0,
    )
    if not (metrics.last_minute.requests or metrics.in_flight or metrics.queued):
        meters.activity.rest(served_entity_id)
    return metrics


async def report_metrics(
    meters: RequestMeters,
    rejections: Rejections,
    shadows: ShadowTallies,
    lag: LoopLag,
    dispatcher: Dispatcher,
    gateway_id: str,
    bus: Callable[[], Bus | None],
) -> None:
    """Report for ever. A report nobody hears is made up for by the next: they hold totals."""
    loop = asyncio.get_running_loop()
    subject = subjects.gateway_metrics(gateway_id)
    while True:
        await asyncio.sleep(INTERVAL)
        for report in take_metrics(meters, rejections, shadows, lag, dispatcher, gateway_id, loop.time()):
            current = bus()
            if current is not None and current.connected:
                await current.signal(subject, report)
            await asyncio.sleep(0)
