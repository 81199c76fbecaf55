"""Tell the scaler, once a second, how much each served entity has to do in this gateway."""

import asyncio
from collections.abc import Callable, Iterator

from servery_common.contracts import subjects
from servery_common.contracts.scaling import EntityLoad, GatewayLoad
from servery_common.messaging.port import Bus
from servery_gateway.dispatcher import Dispatcher
from servery_gateway.entity_pool import EntityPool

INTERVAL = 1.0
MAX_ENTITIES = 200
"""Per message: about 200 bytes each, a fraction of NATS' limit of 1 MiB. Requests go on between two messages."""


class LoadReports:
    """Makes the reports of one gateway."""

    def __init__(self, dispatcher: Dispatcher, gateway_id: str, now: float) -> None:
        self._dispatcher = dispatcher
        self._gateway_id = gateway_id
        self._taken_at = now

    def take(self, now: float) -> Iterator[GatewayLoad]:
        """Make the messages that say what happened since the last call, each when it is asked for; at least one.

        In them are the served entities that had something to do, once more when they are idle again, and a few of
        the others in turn: what is not in a report is as it was.
        """
        since, self._taken_at = self._taken_at, now
        due = self._dispatcher.activity.due()
        for at in range(0, max(1, len(due)), MAX_ENTITIES):
            loads = tuple(self._load(pool, now, since) for pool in due[at : at + MAX_ENTITIES])
            yield GatewayLoad(gateway_id=self._gateway_id, window_seconds=now - since, entities=loads)

    def _load(self, pool: EntityPool, now: float, since: float) -> EntityLoad:
        window = pool.load.take(now, since)
        if not (window.in_flight or window.queued or window.requests):
            self._dispatcher.activity.rest(pool)
        return EntityLoad(
            endpoint_id=pool.endpoint_id,
            served_entity_id=pool.served_entity_id,
            in_flight=round(window.in_flight, 4),
            queued=round(window.queued, 4),
            requests=window.requests,
            service_seconds=round(window.service_seconds, 6),
        )


async def report_load(dispatcher: Dispatcher, gateway_id: str, bus: Callable[[], Bus | None]) -> None:
    """Report for ever. What is measured while nobody can hear it is dropped: it would be old news."""
    loop = asyncio.get_running_loop()
    subject = subjects.gateway_load(gateway_id)
    reports = LoadReports(dispatcher, gateway_id, loop.time())
    while True:
        await asyncio.sleep(INTERVAL)
        for report in reports.take(loop.time()):
            current = bus()
            if current is not None and current.connected:
                await current.signal(subject, report)
            await asyncio.sleep(0)
