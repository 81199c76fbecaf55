"""Knative's and Ray Serve's policies, written from their published rules with their published defaults.

Knative: ``pkg/autoscaler/scaling/autoscaler.go`` and ``config/core/configmaps/autoscaler.yaml`` of knative/serving.
Ray Serve 2.x: ``python/ray/serve/autoscaling_policy.py`` and ``config.py`` of ray-project/ray. Both are told what ours
is told: each second the mean of what ran and what waited, the queue included.
"""

from collections import deque
from dataclasses import dataclass
from math import ceil, floor

from tests.benchmarks.autoscaling.simulation import Second


class Knative:
    """The KPA on concurrency, with ``containerConcurrency`` the slots of a replica."""

    TICK = 2
    STABLE_WINDOW = 60
    PANIC_WINDOW = 6
    PANIC_THRESHOLD = 2.0
    MAX_SCALE_UP_RATE = 1000.0
    MAX_SCALE_DOWN_RATE = 2.0
    UTILIZATION = 0.7

    def __init__(self, slots: int) -> None:
        self._target = slots * self.UTILIZATION
        self._loads: deque[float] = deque(maxlen=self.STABLE_WINDOW)
        self._panic_since: float | None = None
        self._panic_most = 0
        self._ticks = 0

    def __call__(self, second: Second) -> int:
        self._loads.append(second.running + second.waiting)
        self._ticks += 1
        if self._ticks % self.TICK:
            return second.desired
        ready = max(1, second.ready)
        stable = ceil(sum(self._loads) / len(self._loads) / self._target)
        last = list(self._loads)[-self.PANIC_WINDOW :]
        panic = ceil(sum(last) / len(last) / self._target)
        most, least = ceil(self.MAX_SCALE_UP_RATE * ready), floor(ready / self.MAX_SCALE_DOWN_RATE)
        if panic / ready >= self.PANIC_THRESHOLD:
            self._panic_since = second.now
        elif self._panic_since is not None and self._panic_since + self.STABLE_WINDOW < second.now:
            self._panic_since, self._panic_most = None, 0
        desired = min(max(stable, least), most)
        if self._panic_since is None:
            return desired
        self._panic_most = max(self._panic_most, desired, min(max(panic, least), most))
        return self._panic_most


@dataclass(frozen=True)
class RayConfig:
    """The part of ``AutoscalingConfig`` that matters here; all in seconds."""

    target_ongoing_requests: float = 2.0
    look_back_period: int = 30
    upscale_delay: int = 30
    downscale_delay: int = 600
    metrics_interval: int = 10


RAY_TUNED = RayConfig(2.8, look_back_period=5, upscale_delay=0, downscale_delay=60, metrics_interval=1)
"""Not Ray's defaults: as many requests a replica as Knative aims at, and a cadence such as ours."""


class RayServe:
    """The queue-length policy. Its control loop comes round ten times a second; here once, and delays are the same."""

    def __init__(self, config: RayConfig) -> None:
        self._config = config
        self._loads: deque[float] = deque(maxlen=config.look_back_period)
        self._known = 0.0
        self._counter = 0
        self._ticks = 0

    def __call__(self, second: Second) -> int:
        self._loads.append(second.running + second.waiting)
        if self._ticks % self._config.metrics_interval == 0:
            self._known = sum(self._loads) / len(self._loads)
        self._ticks += 1
        running, target = second.ready, second.desired
        wanted = ceil(self._known / self._config.target_ongoing_requests) if running else 1
        if wanted > target:
            self._counter = max(self._counter, 0) + 1
            if self._counter > self._config.upscale_delay:
                self._counter = 0
                return wanted
        elif wanted < target:
            self._counter = min(self._counter, 0) - 1
            if self._counter < -self._config.downscale_delay:
                self._counter = 0
                return max(1, wanted)
        else:
            self._counter = 0
        return target
