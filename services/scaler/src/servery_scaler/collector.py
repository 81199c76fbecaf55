"""Load signals in: the newest word of each gateway about each served entity, summed per served entity.

A gateway reports each second, though not of every served entity: of the idle ones it says so once, and then rarely. So
what a gateway does not mention is as it was, as long as the gateway reports at all. What it saw while it could not be
heard is lost: nobody was idle for longer than since then.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from servery_common.contracts.scaling import EntityLoad, GatewayLoad, GatewayWake

STALE_SECONDS = 5.0
"""A gateway reports each second; one that is silent this long is no longer counted."""
HELD_SECONDS = 3.0
"""A gateway says each second what it holds; when it has not for so long, it holds nothing any more."""
FORGOTTEN_SECONDS = 180.0
"""A gateway mentions each of its served entities once a minute; what it has not for so long, it no longer routes to."""
TIDY_SECONDS = 60.0


class Demand(NamedTuple):
    """What gateways say of one served entity, summed over them."""

    running: float
    waiting: float
    """Queued or held. A gateway has the held ones among the queued ones, so that none is counted twice."""
    ended: float
    """A second."""
    service_seconds: float
    """Mean time in a slot of those that ended; 0 when none did, or no gateway told."""
    resumed_at: float
    """When a gateway that tells of it was heard for the first time, or again after a gap."""

    @property
    def idle(self) -> bool:
        return not (self.running or self.waiting or self.ended)


class _Word(NamedTuple):
    heard_at: float
    load: EntityLoad
    window_seconds: float


class _Gateway(NamedTuple):
    heard_at: float
    resumed_at: float


class LoadCollector:
    """``clock`` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._gateways: dict[str, _Gateway] = {}
        self._words: dict[str, dict[str, _Word]] = {}
        """By served entity id and gateway id."""
        self._held: dict[str, dict[str, tuple[float, int]]] = {}
        """When it was said, and how many; by served entity id and gateway id."""
        self._active_at: dict[str, float] = {}
        self._stirred: set[str] = set()
        self._tidied_at = clock()

    async def heard(self, load: GatewayLoad) -> None:
        """Take a gateway's report in; what it says of a served entity replaces what it said before."""
        now = self._clock()
        before = self._gateways.get(load.gateway_id)
        gap = before is None or now - before.heard_at > STALE_SECONDS
        resumed_at = now if before is None or gap else before.resumed_at
        self._gateways[load.gateway_id] = _Gateway(now, resumed_at)
        for entity in load.entities:
            word = _Word(now, entity, load.window_seconds)
            self._words.setdefault(entity.served_entity_id, {})[load.gateway_id] = word
            if entity.in_flight or entity.queued or entity.requests:
                self._active(entity.served_entity_id, now)
        if now - self._tidied_at >= TIDY_SECONDS:
            self._tidied_at = now
            self._tidy(now)

    def woken(self, wake: GatewayWake) -> None:
        """Take in that requests wait for the first replica of served entities."""
        now = self._clock()
        for entity in wake.entities:
            self._held.setdefault(entity.served_entity_id, {})[wake.gateway_id] = (now, entity.held)
            self._active(entity.served_entity_id, now)

    def stirred(self) -> set[str]:
        """Return the served entities that had something to do since the last call."""
        stirred, self._stirred = self._stirred, set()
        return stirred

    def active_at(self, served_entity_id: str) -> float | None:
        """Return when a request was last seen to run, wait or end; None: never."""
        return self._active_at.get(served_entity_id)

    def demand(self, served_entity_id: str) -> Demand | None:
        """Return the demand for a served entity, or None when no gateway that reports has told of it."""
        now = self._clock()
        words = {
            gateway_id: word
            for gateway_id, word in self._words.get(served_entity_id, {}).items()
            if now - self._gateways[gateway_id].heard_at <= STALE_SECONDS
            and now - word.heard_at <= FORGOTTEN_SECONDS
        }
        # A report that came after the wake has the held requests among the queued ones, or they are held no more.
        held = {
            gateway_id: count
            for gateway_id, (at, count) in self._held.get(served_entity_id, {}).items()
            if now - at <= HELD_SECONDS and (gateway_id not in words or words[gateway_id].heard_at <= at)
        }
        if not words and not held:
            return None
        running = waiting = ended = worked = timed = resumed_at = 0.0
        for gateway_id, word in words.items():
            load = word.load
            running += load.in_flight
            waiting += max(load.queued, held.pop(gateway_id, 0))
            per_second = load.requests / word.window_seconds if word.window_seconds > 0 else 0.0
            ended += per_second
            if load.service_seconds > 0:
                worked += per_second * load.service_seconds
                timed += per_second
            resumed_at = max(resumed_at, self._gateways[gateway_id].resumed_at)
        waiting += sum(held.values())
        return Demand(running, waiting, ended, worked / timed if timed else 0.0, resumed_at)

    def gateways(self) -> int:
        """Return how many gateways report now."""
        now = self._clock()
        return sum(now - one.heard_at <= STALE_SECONDS for one in list(self._gateways.values()))

    def _active(self, served_entity_id: str, now: float) -> None:
        self._active_at[served_entity_id] = now
        self._stirred.add(served_entity_id)

    def _tidy(self, now: float) -> None:
        gone = {name for name, gateway in self._gateways.items() if now - gateway.heard_at > STALE_SECONDS}
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
            del self._gateways[gateway]
        # Who nobody tells of is not watched either, and begins anew when somebody does.
        self._active_at = {
            entity: at
            for entity, at in self._active_at.items()
            if entity in self._words or entity in self._held
        }
        self._held = {
            entity: held
            for entity, held in self._held.items()
            if any(now - at <= HELD_SECONDS for at, _ in held.values())
        }

    def forget(self, served_entity_id: str) -> None:
        """It is served no more."""
        self._active_at.pop(served_entity_id, None)
        self._held.pop(served_entity_id, None)
        self._stirred.discard(served_entity_id)
