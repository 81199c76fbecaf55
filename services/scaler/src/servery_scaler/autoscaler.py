"""Decide how many replicas a served entity should have.

Pure: the caller brings the observation and applies the decision. The policy is a fixed count: what the
entity is promised at least, and never less than one replica, whatever the load. The load is part of the
observation and of the reason, so that a decision can be judged by who reads it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScalingSpec:
    """What a served entity may have."""

    min_replicas: int
    max_replicas: int
    slots_per_replica: int


@dataclass(frozen=True, slots=True)
class Demand:
    """Requests being worked on and waiting, summed over gateways."""

    in_flight: float
    queued: float


@dataclass(frozen=True, slots=True)
class ScaleDecision:
    """How many, and why, for people."""

    desired_replicas: int
    reason: str


def decide(spec: ScalingSpec, demand: Demand | None) -> ScaleDecision:
    """Return the replica count for one served entity; ``demand`` is None when no gateway reported lately."""
    desired = min(max(1, spec.min_replicas), spec.max_replicas)
    capacity = desired * spec.slots_per_replica
    if demand is None:
        return ScaleDecision(
            desired, f"fixed at {desired} replicas ({capacity} slots); no gateway reported load"
        )
    load = f"{demand.in_flight:.1f} requests running, {demand.queued:.1f} waiting"
    return ScaleDecision(desired, f"fixed at {desired} replicas ({capacity} slots); {load}")
