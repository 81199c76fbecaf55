"""From what is seen of the requests to how many should have room at a time. Pure arithmetic.

Square-root safety staffing (Halfin and Whitt, "Heavy-Traffic Limits for Queues with Many Exponential Servers", 1981):
Poisson arrivals that keep ``m`` slots busy on average keep about ``m + sqrt(m)`` busy now and then, so room for chance
has to grow with the square root of the load and not with the load. At 4 requests at a time that is more than the 70 %
utilisation that is usual, at 1,000 it is far less.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt

RISING_SECONDS = 4
"""A ramp is seen when each of so many seconds had more load than the one before. A step rises once, or twice."""
NOISE = 0.5
"""So many square roots of the load may a second's mean differ from the one before by chance."""
UNHURRIED_SECONDS = 5.0
"""Room for chance is doubled when replicas take three times so long to start."""
MAX_GROWTH = 2.0
"""A ramp is followed to so many times the load that was seen, however slowly replicas start."""


def backlog_load(waiting: float, service_seconds: float, drain_seconds: float) -> float:
    """Return the room, in requests at a time, that works ``waiting`` requests off in ``drain_seconds``.

    A thousand requests of 0.1 s are 100 s of work: room for 20 does it in 5 s. With an unknown service time (0), each
    waiting request counts as one at a time, as in Knative and Ray Serve; so it does if it takes longer than the drain.
    """
    if service_seconds <= 0:
        return waiting
    return waiting * min(1.0, service_seconds / drain_seconds)


def offered_load(running: float, waiting: float, arrived: float, service_seconds: float) -> float:
    """Return the room, in requests at a time, that the requests of one second took, or would have taken.

    While nobody waits that is what runs. While somebody does, what runs is no more than what there is room for, and
    what came tells more: by Little's law ``arrived`` a second at ``service_seconds`` each.
    """
    return max(running, arrived * service_seconds) if waiting > 0 else running


def capacity(load: float, safety: float, startup_seconds: float) -> float:
    """Return the room, in requests at a time, for a mean load and what chance adds to it.

    What is missing is there ``startup_seconds`` later. The slower that is, the more has to be there before.
    """
    return load + safety * sqrt(load * (1 + startup_seconds / UNHURRIED_SECONDS))


def peak(loads: Sequence[float], width: int) -> float:
    """Return the largest mean of ``width`` successive seconds; of fewer, if there are not so many."""
    if len(loads) <= width:
        return sum(loads) / len(loads) if loads else 0.0
    total = highest = sum(loads[:width])
    for leaves, enters in zip(loads, loads[width:], strict=False):
        total += enters - leaves
        highest = max(highest, total)
    return highest / width


def recent(loads: Sequence[float], width: int) -> float:
    """Return the mean of the last ``width`` seconds."""
    last = loads[-width:]
    return sum(last) / len(last) if last else 0.0


def rise(loads: Sequence[float]) -> float:
    """Return by how much the load grows each second in a ramp; 0 when it does not, or only as chance would have it."""
    last = loads[-RISING_SECONDS:]
    if len(last) < RISING_SECONDS:
        return 0.0
    least = min(after - before for before, after in pairwise(last))
    return max(0.0, least - NOISE * sqrt(last[-1]))


def expected(load: float, growth: float, seconds: float) -> float:
    """Return the load in so many seconds if it goes on growing so much in each."""
    return min(load + growth * seconds, load * MAX_GROWTH)
