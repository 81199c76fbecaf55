"""Learn how many requests one replica of a model should have at a time. Pure: the time is an argument.

A replica that works on one request after the other takes four times as long for four at once, and gains nothing by it.
One that waits for something else takes as long for four as for one. One that joins requests takes little longer for a
hundred. Which it is shows in how the time in a slot goes with the concurrency:

* Blocks of requests are sorted by their mean concurrency ``x`` for each ready replica, into steps of half an octave. Of
  each step the mean time in a slot ``s`` is kept, and older blocks count less and less.
* Kleinrock's power, throughput over time, is ``x / s**2`` by Little's law ("Power and deterministic rules of thumb for
  probabilistic problems in computer communications", 1979). It is highest at the knee: where there is always something
  to do and hardly anything waits. Half a step further, more concurrency costs more time than it brings answers.
* A concurrency is too high when one of half of it, or less, had clearly more power. With a smaller difference in
  concurrency the comparison would go round in a circle: by Little's law, requests that happen to take longer are also
  more at a time.
* As in Netflix' Gradient2 limit (concurrency-limits) and Databricks' AutoPilot the target moves in bounded steps, down
  quickly and up slowly, and up only from where replicas have been near it and nobody had to wait.
"""

from dataclasses import dataclass
from math import log, log2, sqrt

BLOCK_SECONDS = 10.0
BLOCK_REQUESTS = 100
"""A block's mean time has to tell of the model, not of a few requests that were long."""
STALE_BLOCK_SECONDS = 600.0
"""A block that is not full by then is dropped: it would mix two times of the day."""
FEWEST_BLOCKS = 2
CONTRAST = 2.0
"""Concurrencies are compared when one is at least so many times the other."""
MARGIN = 0.15
"""Of the logarithm of the power, beside two standard errors."""
MEMORY = 0.999
"""Weight of what was known, at each interval with evidence: half of it after six hours of them. A version of a model
stays as it is, and of the night is to be known by day; but what was once found too much is tried again some time."""
MOST_BLOCKS = 50.0
"""Of one step of concurrency; the oldest make room."""
LOWERED = 0.5
RAISED = 1.25
"""Most that the target changes in one interval."""
NEAR = 0.6
"""Of the target: a replica that had less at a time does not show how it bears more."""
QUEUED = 0.1
"""Of those that run: when more had to wait, the interval is no evidence for more on each replica."""
FLOOR = 1.0
SHARE_OF_LIMIT = 0.8
"""Of what a replica accepts at most the target may become, so that there is room for chance in it."""


@dataclass(slots=True)
class _Step:
    """Blocks of about one concurrency: sums over them."""

    blocks: float = 0.0
    concurrency: float = 0.0
    service: float = 0.0
    service_squared: float = 0.0

    def mean_concurrency(self) -> float:
        return self.concurrency / self.blocks

    def log_power(self) -> float:
        return log(self.mean_concurrency()) - 2 * log(self.service / self.blocks)

    def scale(self, share: float) -> None:
        self.blocks *= share
        self.concurrency *= share
        self.service *= share
        self.service_squared *= share

    def error(self) -> float:
        """Standard error of ``log_power``."""
        mean = self.service / self.blocks
        variance = max(0.0, self.service_squared / self.blocks - mean * mean)
        return 2 * sqrt(variance / self.blocks) / mean


class ConcurrencyLearner:
    """Watches one served entity. Keeps a few numbers for each of about twenty steps of concurrency."""

    __slots__ = (
        "_block_seconds",
        "_ended",
        "_learned_at",
        "_near",
        "_queued",
        "_replica_seconds",
        "_running",
        "_seeded",
        "_service",
        "_steps",
        "_took_block",
        "target",
    )

    def __init__(self, now: float, slots: int) -> None:
        self.target = float(slots)
        self._learned_at = now
        self._steps: dict[int, _Step] = {}
        self._seeded = False
        self._new_block()
        self._new_interval()

    def observe(
        self,
        *,
        running: float,
        waiting: float,
        replicas: int,
        ended: float,
        service_seconds: float,
        slots: int,
        accepted: int,
        seconds: float = 1.0,
    ) -> None:
        """Take in what was seen in so many seconds.

        ``accepted`` is what a ready replica accepts at a time, ``slots`` what it was declared to work on.
        """
        if replicas <= 0 or running <= 0:
            return
        concurrency = running / replicas
        if not self._seeded:
            # Nothing is known, as after a restart. What goes on without anybody waiting need not be spread out first.
            self._seeded = True
            if waiting <= QUEUED * running:
                self.target = max(self.target, concurrency)
        self.target = min(max(self.target, FLOOR), limit(slots, accepted))
        if waiting > QUEUED * running:
            self._queued = True
        self._block_seconds += seconds
        self._running += running * seconds
        self._replica_seconds += replicas * seconds
        self._ended += ended * seconds
        self._service += service_seconds * ended * seconds
        if self._block_seconds < BLOCK_SECONDS:
            return
        if self._ended >= BLOCK_REQUESTS and self._service > 0:
            self._take_block(self._running / self._replica_seconds, self._service / self._ended)
            self._new_block()
        elif self._block_seconds > STALE_BLOCK_SECONDS:
            self._new_block()

    def learn(self, now: float, interval: float, *, slots: int, accepted: int) -> float:
        """Move the target if an interval is over and there is evidence; return it."""
        if now - self._learned_at < interval or not self._took_block:
            return self.target
        self._learned_at = now
        highest = limit(slots, accepted)
        knee = self._knee()
        if knee is not None and knee < self.target:
            self.target = max(knee, self.target * LOWERED, FLOOR)
        elif self._near >= NEAR * self.target and not self._queued:
            self.target = min(self.target * RAISED, highest if knee is None else min(knee, highest))
        self._forget()
        self._new_interval()
        return self.target

    def _knee(self) -> float | None:
        """Return the concurrency of most power, if a higher one is known to be too high."""
        known = sorted(
            (step for step in self._steps.values() if step.blocks >= FEWEST_BLOCKS),
            key=_Step.mean_concurrency,
        )
        for at, high in enumerate(known):
            lower = [
                low for low in known[:at] if low.mean_concurrency() * CONTRAST <= high.mean_concurrency()
            ]
            if any(_beats(low, high) for low in lower):
                return max(known[:at], key=_Step.log_power).mean_concurrency()
        return None

    def _take_block(self, concurrency: float, service: float) -> None:
        step = self._steps.setdefault(round(2 * log2(max(concurrency, 0.25))), _Step())
        if step.blocks >= MOST_BLOCKS:
            step.scale((MOST_BLOCKS - 1) / MOST_BLOCKS)
        step.blocks += 1
        step.concurrency += concurrency
        step.service += service
        step.service_squared += service * service
        self._took_block = True
        self._near = max(self._near, concurrency)

    def _forget(self) -> None:
        for number, step in list(self._steps.items()):
            step.scale(MEMORY)
            if step.blocks < 0.5:
                del self._steps[number]

    def _new_block(self) -> None:
        self._block_seconds = self._running = self._replica_seconds = self._ended = self._service = 0.0

    def _new_interval(self) -> None:
        self._took_block = self._queued = False
        self._near = 0.0


def limit(slots: int, accepted: int) -> float:
    """Return the highest target of a replica that accepts so many requests at a time and has so many slots."""
    return max(FLOOR, float(slots), SHARE_OF_LIMIT * accepted)


def _beats(low: _Step, high: _Step) -> bool:
    noise = 2 * sqrt(low.error() ** 2 + high.error() ** 2)
    return low.log_power() - high.log_power() > MARGIN + noise
