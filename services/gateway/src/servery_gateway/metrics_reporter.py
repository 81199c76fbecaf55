"""Tell the controllers, every two seconds, what was counted of each served entity in this gateway."""

import asyncio
from collections.abc import Callable

from servery_common.contracts import subjects
from servery_common.contracts.metrics import EntityMetrics, GatewayMetrics
from servery_common.messaging.port import Bus
from servery_gateway.dispatcher import Dispatcher
from servery_gateway.request_meter import RequestMeters

INTERVAL = 2.0
MAX_ENTITIES = 500
"""Per message: less than 1 KB each, half of NATS' limit of 1 MiB."""


def take_metrics(
    meters: RequestMeters, dispatcher: Dispatcher, gateway_id: str, now: float
) -> list[GatewayMetrics]:
    """Return the totals so far. Idle served entities are in it: zero is news, silence is not."""
    loads = {pool.served_entity_id: pool.load for pool in dispatcher.pools()}
    entities: list[EntityMetrics] = []
    for served_entity_id, meter in meters.items():
        load = loads.get(served_entity_id)
        entities.append(
            meter.read(
                now,
                served_entity_id,
                in_flight=load.in_flight if load else 0,
                queued=load.queued if load else 0,
            )
        )
    return [
        GatewayMetrics(gateway_id=gateway_id, entities=tuple(entities[at : at + MAX_ENTITIES]))
        for at in range(0, len(entities), MAX_ENTITIES)
    ]


async def report_metrics(
    meters: RequestMeters, dispatcher: Dispatcher, gateway_id: str, bus: Callable[[], Bus | None]
) -> None:
    """Report for ever. A report nobody hears is made up for by the next: they hold totals."""
    loop = asyncio.get_running_loop()
    subject = subjects.gateway_metrics(gateway_id)
    while True:
        await asyncio.sleep(INTERVAL)
        reports = take_metrics(meters, dispatcher, gateway_id, loop.time())
        current = bus()
        if current is not None and current.connected:
            for report in reports:
                await current.signal(subject, report)
