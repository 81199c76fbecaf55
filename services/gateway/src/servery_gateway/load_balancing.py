"""Choose a served entity by weight and a replica by load. Pure: randomness is an argument."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from servery_common.contracts.routes import ServedEntityRoute


class Loaded(Protocol):
    """Something that works on a number of requests at the moment."""

    in_flight: int


R = TypeVar("R", bound=Loaded)


def choose_served_entity(entities: Sequence[ServedEntityRoute], point: float) -> ServedEntityRoute | None:
    """Return the entity that ``point`` (in [0, 1)) falls on when the weights are laid side by side.

    Weights need not add up to 100; without any weight above zero nothing may be chosen and None comes back.
    """
    total = sum(entity.traffic_percentage for entity in entities)
    if total <= 0:
        return None
    mark = point * total
    for entity in entities:
        mark -= entity.traffic_percentage
        if mark < 0:
            return entity
    return next(entity for entity in reversed(entities) if entity.traffic_percentage > 0)


def power_of_two_choices(replicas: Sequence[R], random: Callable[[], float]) -> R | None:
    """Return the less loaded of two replicas drawn at random; ``random`` answers floats in [0, 1).

    Two draws are nearly as even as looking at all, and several gateways, each seeing only its own requests,
    do not all run to the same idle replica.
    """
    count = len(replicas)
    if count == 0:
        return None
    if count == 1:
        return replicas[0]
    first = int(random() * count)
    second = int(random() * (count - 1))
    if second >= first:
        second += 1
    one, other = replicas[first], replicas[second]
    return one if one.in_flight <= other.in_flight else other
