"""The scaler's own decisions, in the simulator's world: the very function the service runs."""

from collections import deque

from tests.benchmarks.autoscaling.simulation import Second

from servery_scaler.autoscaler import Observation, ScalingPolicy, ScalingSpec, ScalingState, decide
from servery_scaler.staffing import offered_load


class Servery:
    """Feeds ``decide`` as the service does: one load a second, the decision's state carried over."""

    def __init__(self, slots: int, max_replicas: int, policy: ScalingPolicy | None = None) -> None:
        self._policy = policy or ScalingPolicy()
        self._spec = ScalingSpec(1, max_replicas, float(slots))
        self._loads: deque[float] = deque(maxlen=round(self._policy.stable_window))
        self._state = ScalingState()
        self._in_system = 0.0
        self._service = 0.0

    def __call__(self, second: Second) -> int:
        in_system = second.running + second.waiting
        arrived = max(0.0, second.ended + in_system - self._in_system)
        self._in_system = in_system
        if second.service_seconds:
            self._service += (second.service_seconds - self._service) * (0.2 if self._service else 1.0)
        self._loads.append(offered_load(second.running, second.waiting, arrived, self._service))
        seen = Observation(
            desired_replicas=second.desired,
            ready_replicas=second.ready,
            loads=list(self._loads),
            running=second.running,
            waiting=second.waiting,
            service_seconds=self._service,
            watched_seconds=second.now,
            startup_seconds=second.startup_seconds,
        )
        decision = decide(self._spec, self._policy, seen, self._state, second.now)
        self._state = decision.state
        return decision.desired_replicas
