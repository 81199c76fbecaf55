"""Choose a served entity by weight and a replica by load. Pure: randomness is an argument.

The points of an endpoint's requests are steps of the golden ratio around a circle, which fill every stretch of it in
proportion, all the time: of any n requests in a row each served entity gets its share to within a few requests, where
random points would be off by the square root of n. Neighbouring requests land far apart, so shares are mixed and
not served in blocks.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from servery_common.contracts.routes import ServedEntityRoute


class Loaded(Protocol):
    """Something that works on a number of requests at the moment."""

    in_flight: int

    def is_free(self, now: float) -> bool:
        """Whether it may be given another one."""
        ...


R = TypeVar("R", bound=Loaded)

GOLDEN_STEP = (math.sqrt(5) - 1) / 2


class TrafficPoints:
    """The next point, in [0, 1), of each endpoint. ``random`` says where on the circle an endpoint begins, so that
    several gateways are not in step."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._last: dict[str, float] = {}

    def next(self, endpoint_id: str) -> float:
        """Return the point for another request to this endpoint."""
        last = self._last.get(endpoint_id)
        point = self._random() if last is None else (last + GOLDEN_STEP) % 1.0
        self._last[endpoint_id] = point
        return point

    def forget(self, endpoint_id: str) -> None:
        """Forget an endpoint that is gone."""
        self._last.pop(endpoint_id, None)


def choose_served_entity(entities: Sequence[ServedEntityRoute], point: float) -> ServedEntityRoute | None:
    """Return the entity that ``point`` (in [0, 1)) falls on when the weights are laid side by side.

    Weights need not add up to 100; without any weight above zero nothing may be chosen and None comes back.
    """
    if len(entities) == 1 and entities[0].traffic_percentage > 0:
        return entities[0]  # As most endpoints have it.
    total = sum(entity.traffic_percentage for entity in entities)
    if total <= 0:
        return None
    mark = point * total
    for entity in entities:
        mark -= entity.traffic_percentage
        if mark < 0:
            return entity
    return next(entity for entity in reversed(entities) if entity.traffic_percentage > 0)


def power_of_two_choices(replicas: Sequence[R], now: float, random: Callable[[], float]) -> R | None:
    """Return the less loaded of two replicas drawn at random, or whichever is free; None when no replica is.

    ``random`` answers floats in [0, 1). Two draws are nearly as even as looking at all, and several gateways, each
    seeing only its own requests, do not all run to the same idle replica.
    """
    count = len(replicas)
    if count == 0:
        return None
    first = int(random() * count)
    one = replicas[first]
    if count > 1:
        second = int(random() * (count - 1))
        other = replicas[second + 1 if second >= first else second]
        if other.is_free(now) and (other.in_flight < one.in_flight or not one.is_free(now)):
            return other
    if one.is_free(now):
        return one
    for step in range(1, count):
        candidate = replicas[(first + step) % count]
        if candidate.is_free(now):
            return candidate
    return None
