"""Tell the scaler, once a second, how much each served entity has to do in this gateway."""

import asyncio
from collections.abc import Callable

from servery_common.contracts import subjects
from servery_common.contracts.scaling import EntityLoad, GatewayLoad
from servery_common.messaging.port import Bus
from servery_gateway.dispatcher import Dispatcher

INTERVAL = 1.0
MAX_ENTITIES = 1000
"""Per message: about 200 bytes each, a fraction of NATS' limit of 1 MiB."""


def take_report(dispatcher: Dispatcher, gateway_id: str, now: float) -> list[GatewayLoad]:
    """Return what happened since the last report. Idle entities are in it: zero is news, silence is not."""
    seconds = INTERVAL
    loads: list[EntityLoad] = []
    for pool in dispatcher.pools():
        window = pool.load.take(now)
        seconds = window.seconds
        loads.append(
            EntityLoad(
                endpoint_id=pool.endpoint_id,
                served_entity_id=pool.served_entity_id,
                in_flight=round(window.in_flight, 4),
                queued=round(window.queued, 4),
                requests=window.requests,
            )
        )
    return [
        GatewayLoad(
            gateway_id=gateway_id, window_seconds=seconds, entities=tuple(loads[at : at + MAX_ENTITIES])
        )
        for at in range(0, len(loads), MAX_ENTITIES)
    ]


async def report_load(dispatcher: Dispatcher, gateway_id: str, bus: Callable[[], Bus | None]) -> None:
    """Report for ever. What is measured while nobody can hear it is dropped: it would be old news."""
    loop = asyncio.get_running_loop()
    subject = subjects.gateway_load(gateway_id)
    while True:
        await asyncio.sleep(INTERVAL)
        reports = take_report(dispatcher, gateway_id, loop.time())
        current = bus()
        if current is not None and current.connected:
            for report in reports:
                await current.signal(subject, report)
