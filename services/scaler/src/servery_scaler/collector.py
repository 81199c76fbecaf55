"""Load signals in: the newest word of each gateway about each served entity, summed per served entity.

A gateway reports each second, though not of every served entity: of the idle ones it says so once, and then rarely. So
what a gateway does not mention is as it was, as long as the gateway reports at all.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from servery_common.contracts.scaling import EntityLoad, GatewayLoad
from servery_scaler.autoscaler import Demand

STALE_SECONDS = 5.0
"""A gateway reports each second; one that is silent this long is no longer counted."""
FORGOTTEN_SECONDS = 180.0
"""A gateway mentions each of its served entities once a minute; what it has not for so long, it no longer routes to."""
TIDY_SECONDS = 60.0


class _Word(NamedTuple):
    heard_at: float
    load: EntityLoad


class LoadCollector:
    """``clock`` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard_at: dict[str, float] = {}
        """By gateway id."""
        self._words: dict[str, dict[str, _Word]] = {}
        """By served entity id and gateway id."""
        self._tidied_at = clock()

    async def heard(self, load: GatewayLoad) -> None:
        """Take a gateway's report in; what it says of a served entity replaces what it said before."""
        now = self._clock()
        self._heard_at[load.gateway_id] = now
        for entity in load.entities:
            self._words.setdefault(entity.served_entity_id, {})[load.gateway_id] = _Word(now, entity)
        if now - self._tidied_at >= TIDY_SECONDS:
            self._tidied_at = now
            self._tidy(now)

    def demand(self, served_entity_id: str) -> Demand | None:
        """Return the demand for a served entity, or None when no gateway that reports has told of it."""
        now = self._clock()
        loads = [
            word.load
            for gateway_id, word in self._words.get(served_entity_id, {}).items()
            if now - self._heard_at[gateway_id] <= STALE_SECONDS and now - word.heard_at <= FORGOTTEN_SECONDS
        ]
        if not loads:
            return None
        return Demand(in_flight=sum(e.in_flight for e in loads), queued=sum(e.queued for e in loads))

    def _tidy(self, now: float) -> None:
        gone = {gateway for gateway, heard_at in self._heard_at.items() if now - heard_at > STALE_SECONDS}
        for served_entity_id, words in list(self._words.items()):
            kept = {
                gateway: word
                for gateway, word in words.items()
                if gateway not in gone and now - word.heard_at <= FORGOTTEN_SECONDS
            }
            if kept:
                self._words[served_entity_id] = kept
            else:
                del self._words[served_entity_id]
        for gateway in gone:
            del self._heard_at[gateway]
