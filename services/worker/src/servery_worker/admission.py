"""Whether a replica takes a request. Pure."""

from typing import NamedTuple

BUSY, DRAINING, EXPIRED = "busy", "draining", "expired"
"""The reasons a worker gives in a REFUSE record (``contracts.frames``)."""


class Capacity(NamedTuple):
    """The replica at this moment."""

    draining: bool
    runnable: bool
    """There is a runner, or there will be one within a moment."""
    in_flight: int
    slots: int


def refusal(capacity: Capacity, ttl_ms: float, *, stale: bool) -> str | None:
    """Why the request is not taken; None when it is. ``stale``: its gateway has given it to another replica by now."""
    if capacity.draining:
        return DRAINING
    if ttl_ms <= 0 or stale:
        return EXPIRED
    if not capacity.runnable or capacity.in_flight >= capacity.slots:
        return BUSY
    return None
