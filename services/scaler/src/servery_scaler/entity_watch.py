"""One served entity as the scaler has watched it: its last loads, what was learned of it, the decision before.

Pure: the time and what is seen are arguments.
"""

from collections import deque

from servery_common.contracts.routes import ServedEntityRoute
from servery_scaler.autoscaler import (
    Observation,
    ScaleDecision,
    ScalingPolicy,
    ScalingSpec,
    ScalingState,
    decide,
)
from servery_scaler.collector import Demand
from servery_scaler.staffing import offered_load
from servery_scaler.target_concurrency import ConcurrencyLearner

SECOND = 0.95
"""Of a second: gateways report each, and ticks come a little early or late."""
SERVICE_MEMORY = 0.2
STARTUP_MEMORY = 0.3
"""Weight of what is seen now in what is believed."""
FIRST_STARTUP = 2.0
"""Seconds a replica takes to start, until one was seen to."""


class EntityWatch:
    """Seconds come in with ``see``, decisions go out with ``decide``."""

    __slots__ = (
        "_asked_at",
        "_demand",
        "_heard_at",
        "_in_system",
        "_learner",
        "_loads",
        "_policy",
        "_ready",
        "_resting",
        "_seen_at",
        "_service",
        "_startup",
        "_state",
        "_watched_since",
    )

    def __init__(self, now: float, policy: ScalingPolicy, entity: ServedEntityRoute) -> None:
        self._policy = policy
        self._watched_since = now
        self._demand: Demand | None = None
        self._heard_at: float | None = None
        self._seen_at: float | None = None
        self._loads: deque[float] = deque(maxlen=max(1, round(policy.stable_window)))
        self._in_system = 0.0
        self._service = 0.0
        self._resting = False
        self._learner = ConcurrencyLearner(now, entity.slots_per_replica)
        self._state = ScalingState()
        self._ready = len(entity.replicas)
        self._asked_at: float | None = None
        self._startup = FIRST_STARTUP

    def see(self, now: float, entity: ServedEntityRoute, demand: Demand | None) -> None:
        """Take in what gateways say; of each second once, however often it is called."""
        self._demand = demand
        self._time_startups(now, entity)
        if demand is None:
            # What happens meanwhile is not known: the window begins anew.
            self._watched_since = now
            self._loads.clear()
            return
        self._heard_at = now
        passed = None if self._seen_at is None else now - self._seen_at
        if passed is not None and passed < SECOND:
            return
        self._seen_at = now
        seconds = 1.0 if passed is None else passed
        in_system = demand.running + demand.waiting
        arrived = max(0.0, demand.ended + (in_system - self._in_system) / seconds)
        self._in_system = in_system
        if demand.service_seconds > 0:
            weight = SERVICE_MEMORY if self._service else 1.0
            self._service += (demand.service_seconds - self._service) * weight
        self._fill_gap(round(seconds) - 1)
        self._loads.append(offered_load(demand.running, demand.waiting, arrived, self._service))
        self._learn(now, entity, demand, min(seconds, 2.0))

    def decide(
        self, now: float, entity: ServedEntityRoute, active_at: float | None, *, keep: bool = True
    ) -> ScaleDecision:
        """Decide on what was seen; with ``keep`` the next decision follows this one."""
        demand = self._demand
        watched_since = max(self._watched_since, demand.resumed_at if demand else 0.0)
        idle_since = watched_since if active_at is None else max(watched_since, active_at)
        seen = Observation(
            desired_replicas=entity.desired_replicas,
            ready_replicas=len(entity.replicas),
            loads=list(self._loads),
            running=demand.running if demand else 0.0,
            waiting=demand.waiting if demand else 0.0,
            service_seconds=self._service,
            heard_seconds_ago=None if self._heard_at is None else now - self._heard_at,
            watched_seconds=now - watched_since,
            idle_seconds=now - idle_since,
            startup_seconds=self._startup,
        )
        spec = ScalingSpec(
            entity.min_replicas, entity.max_replicas, self.target(entity), entity.scale_to_zero_seconds
        )
        decision = decide(spec, self._policy, seen, self._state, now)
        if keep:
            self._state = decision.state
        return decision

    def target(self, entity: ServedEntityRoute) -> float:
        """Return the requests one replica should have at a time: as pinned, else as learned."""
        return entity.target_concurrency or self._learner.target

    def rests(self, entity: ServedEntityRoute, decision: ScaleDecision) -> bool:
        """Whether nothing can change until a request comes, the route changes, or it has been idle for long enough."""
        self._resting = (
            (self._demand is None or self._demand.idle)
            and not any(self._loads)
            and decision.desired_replicas == entity.desired_replicas
            and decision.desired_replicas <= max(entity.min_replicas, 1)
            and decision.state.panic_until is None
        )
        if self._resting:
            self._loads.clear()
        return self._resting

    def _fill_gap(self, seconds: int) -> None:
        """Ticks may be late, and there are none while it rests."""
        load = 0.0 if self._resting or not self._loads else self._loads[-1]
        self._resting = False
        for _ in range(min(seconds, self._loads.maxlen or 0)):
            self._loads.append(load)

    def _learn(self, now: float, entity: ServedEntityRoute, demand: Demand, seconds: float) -> None:
        accepted = max((replica.slots for replica in entity.replicas), default=entity.slots_per_replica)
        self._learner.observe(
            running=demand.running,
            waiting=demand.waiting,
            replicas=len(entity.replicas),
            ended=demand.ended,
            service_seconds=demand.service_seconds,
            slots=entity.slots_per_replica,
            accepted=accepted,
            seconds=seconds,
        )
        self._learner.learn(
            now, self._policy.learn_seconds, slots=entity.slots_per_replica, accepted=accepted
        )

    def _time_startups(self, now: float, entity: ServedEntityRoute) -> None:
        ready = len(entity.replicas)
        if ready > self._ready and self._asked_at is not None:
            self._startup += (now - self._asked_at - self._startup) * STARTUP_MEMORY
        self._ready = ready
        if ready >= entity.desired_replicas:
            self._asked_at = None
        elif self._asked_at is None:
            self._asked_at = now
