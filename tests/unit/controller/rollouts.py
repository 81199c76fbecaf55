"""A guarded rollout as a deployment, and one step of it."""

from dataclasses import replace
from datetime import timedelta

from tests.factories import NOW, config, deployment, entity, observed, replica, seen

from servery_controller.domain import planning
from servery_controller.domain.endpoint import ConfigPhase, EntityHealth, EntityPhase, RolloutStep, Route
from servery_controller.domain.planning import Limits, Plan

LIMITS = Limits(timedelta(hours=2), longest_stream=timedelta(minutes=5))
GUARDED = (
    ("servery.rollout", "guarded"),
    ("servery.rollout_steps", "10,50"),
    ("servery.rollout_step_seconds", "60"),
    ("servery.rollout_min_requests", "50"),
)
WELL = EntityHealth(requests=1000, errors=2, total_ms=10_000)
BOTH_READY = (observed("r1"), observed("r2", entity_id="e2"))


def update(*, phase=ConfigPhase.ROLLING, step=0, tags=GUARDED, new_phase=EntityPhase.READY, extra=()):
    rollout = RolloutStep(step, NOW) if phase is ConfigPhase.ROLLING else None
    return deployment(
        config(1, ConfigPhase.ACTIVE, (Route("old", 100),)),
        replace(config(2, phase, (Route("new", 100),)), rollout=rollout),
        entity("e1", version=1, name="old", phase=EntityPhase.READY),
        entity("e2", version=2, name="new", phase=new_phase),
        replica("r1", "e1"),
        replica("r2", "e2"),
        *extra,
        tags=tags,
    )


def plan(world, old=WELL, new=WELL, *, after=0.0, counted=0.0, observations=BOTH_READY) -> Plan:
    health = {"e1": old, "e2": new}
    sight = replace(seen(*observations), health=health, counted_seconds=counted)
    return planning.plan(world, sight, NOW + timedelta(seconds=after), LIMITS)


def weights(step: Plan) -> dict[str, int]:
    assert step.route is not None
    return {e.name: e.traffic_percentage for e in step.route.served_entities}
