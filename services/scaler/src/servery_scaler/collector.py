"""Load signals in: the newest report of each gateway, summed per served entity."""

import time
from collections.abc import Callable

from servery_common.contracts.scaling import EntityLoad, GatewayLoad
from servery_scaler.autoscaler import Demand

STALE_SECONDS = 5.0
"""A gateway reports each second; one that is silent this long is no longer counted."""


class LoadCollector:
    """``clock`` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reports: dict[str, tuple[float, dict[str, EntityLoad]]] = {}

    async def heard(self, load: GatewayLoad) -> None:
        """Take over a gateway's report; it replaces the one before."""
        self._reports[load.gateway_id] = (self._clock(), {e.served_entity_id: e for e in load.entities})

    def demand(self, served_entity_id: str) -> Demand | None:
        """Return the demand for a served entity, or None when no gateway reported lately."""
        oldest = self._clock() - STALE_SECONDS
        self._reports = {g: report for g, report in self._reports.items() if report[0] >= oldest}
        if not self._reports:
            return None
        loads = [
            entities[served_entity_id]
            for _, entities in self._reports.values()
            if served_entity_id in entities
        ]
        return Demand(in_flight=sum(e.in_flight for e in loads), queued=sum(e.queued for e in loads))
