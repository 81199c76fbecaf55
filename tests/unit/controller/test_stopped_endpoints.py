"""Stopping and starting, as the reconciler and the API see it."""

from datetime import timedelta

from tests.factories import NOW, build, config, deployment, entity, observed, replica, seen

from servery_common.contracts.routes import RateLimit
from servery_common.contracts.states import BuildState
from servery_controller.api.present import detailed, listed
from servery_controller.domain.endpoint import ConfigPhase, EntityPhase, Route
from servery_controller.domain.planning import SETTLED, Limits, Plan
from servery_controller.domain.planning import plan as plan_step

HOST = "http://localhost:8080/"


def plan(world, observation) -> Plan:
    return plan_step(world, observation, NOW, Limits(timedelta(hours=1), timedelta(minutes=5)))


def stopped(*more, **changes):
    return deployment(
        config(1, ConfigPhase.STOPPED, (Route("old", 100),)),
        entity("e1", version=1, name="old", phase=EntityPhase.ABORTED),
        *more,
        **changes,
    )


def starting(phase=EntityPhase.STARTING, *, config_phase=ConfigPhase.PENDING, message=""):
    return (
        config(2, config_phase, (Route("old", 100),)),
        entity("e2", version=2, name="old", phase=phase, message=message),
    )


def test_gateways_are_told_first_and_replicas_are_drained_after_that():
    step = plan(stopped(replica()), seen(observed()))
    assert step.route is not None
    assert (step.route.status, step.route.served_entities) == ("stopped", ())
    assert step.stopping == ("r1",)
    assert step.stop == ()
    after = plan(stopped(replica(stopping=True)), seen(observed()))
    assert [r.id for r in after.stop] == ["r1"]


def test_gateways_are_told_even_while_not_every_worker_was_heard():
    step = plan(stopped(replica()), seen(complete=False))
    assert step.route is not None
    assert step.route.status == "stopped"


def test_a_stopped_endpoint_at_rest_is_left_alone():
    step = plan(stopped(), seen())
    assert (step.new_replicas, step.entities, step.configs) == ((), (), ())
    assert step.look_again == SETTLED


def test_the_stopped_config_is_retired_when_the_started_one_is_active():
    step = plan(
        stopped(*starting(), replica("r2", "e2")),
        seen(observed("r2", entity_id="e2")),
    )
    assert {c.version: c.phase for c in step.configs} == {1: ConfigPhase.RETIRED, 2: ConfigPhase.ACTIVE}
    assert step.route is not None
    assert step.route.status == "serving"


def test_a_start_that_fails_leaves_the_endpoint_stopped():
    world = stopped(*starting(EntityPhase.BUILDING))
    step = plan(world, seen(build("builde2", BuildState.FAILED, reason="No disk.")))
    assert {c.version: c.phase for c in step.configs} == {2: ConfigPhase.FAILED}
    assert step.route is not None
    assert step.route.status == "stopped"
    assert "No disk." in step.route.message


def test_while_it_starts_it_is_being_deployed_and_not_suspended():
    world = stopped(*starting())
    step = plan(world, seen())
    assert step.route is not None
    assert step.route.status == "deploying"
    answer = detailed(world, HOST)
    assert answer["state"] == {
        "ready": "NOT_READY",
        "config_update": "IN_PROGRESS",
        "suspend": "NOT_SUSPENDED",
    }
    assert (answer["config"]["config_version"], answer["pending_config"]["config_version"]) == (1, 2)


def test_a_stopped_endpoint_shows_its_config_and_that_it_is_suspended():
    answer = detailed(stopped(), HOST)
    assert answer["state"] == {
        "ready": "NOT_READY",
        "config_update": "NOT_UPDATING",
        "suspend": "SUSPENDED",
    }
    assert answer["config"]["config_version"] == 1
    assert "pending_config" not in answer
    assert listed(stopped(), None)["config"]["served_entities"][0]["name"] == "old"


def test_after_a_failed_start_it_is_suspended_again_and_says_that_the_update_failed():
    world = stopped(*starting(EntityPhase.FAILED, config_phase=ConfigPhase.FAILED))
    state = detailed(world, HOST)["state"]
    assert (state["config_update"], state["suspend"]) == ("UPDATE_FAILED", "SUSPENDED")


def test_rate_limits_reach_gateways_whatever_the_endpoint_does():
    limits = (RateLimit(calls=3),)
    for world in (
        stopped(rate_limits=limits),
        deployment(config(phase=ConfigPhase.ACTIVE), entity(phase=EntityPhase.READY), rate_limits=limits),
    ):
        route = plan(world, seen()).route
        assert route is not None
        assert route.rate_limits == limits
