"""Time-weighted means of how much is being worked on and how much waits. Pure: the time is an argument."""

from typing import NamedTuple


class LoadWindow(NamedTuple):
    """What happened since the window before."""

    in_flight: float
    queued: float
    requests: int
    seconds: float

    @property
    def service_seconds(self) -> float:
        """Mean time in a slot of the requests that ended, by Little's law; 0 when none did."""
        return self.in_flight * self.seconds / self.requests if self.requests else 0.0


class LoadMeter:
    """Integrates two counters over time: a burst between two reports is not missed."""

    __slots__ = (
        "_area_in_flight",
        "_area_queued",
        "_changed_at",
        "_requests",
        "in_flight",
        "queued",
    )

    def __init__(self, now: float) -> None:
        self.in_flight = 0
        self.queued = 0
        self._requests = 0
        self._area_in_flight = 0.0
        self._area_queued = 0.0
        self._changed_at = now

    def change(self, now: float, *, in_flight: int = 0, queued: int = 0, ended: int = 0) -> None:
        """Add to the counters."""
        elapsed = now - self._changed_at
        self._area_in_flight += self.in_flight * elapsed
        self._area_queued += self.queued * elapsed
        self._changed_at = now
        self.in_flight += in_flight
        self.queued += queued
        self._requests += ended

    def take(self, now: float, since: float) -> LoadWindow:
        """Return the means since then, and begin a new window.

        There must have been no load between the last call and ``since``.
        """
        self.change(now)
        seconds = now - since
        share = 1 / seconds if seconds > 0 else 0.0
        window = LoadWindow(self._area_in_flight * share, self._area_queued * share, self._requests, seconds)
        self._area_in_flight = self._area_queued = 0.0
        self._requests = 0
        return window
