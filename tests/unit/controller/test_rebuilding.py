from dataclasses import replace
from datetime import timedelta

import pytest
from tests.factories import ARTIFACTS, NOW, build, config, deployment, entity, observed, replica, seen

from servery_common.contracts.states import BuildState
from servery_controller.domain import planning
from servery_controller.domain.endpoint import ConfigPhase, EntityPhase, ServedEntity
from servery_controller.domain.planning import BUSY, SETTLED, Limits, Plan, with_rebuild
from servery_controller.domain.rebuilding import TRY_AGAIN_AFTER

LIMITS = Limits(timedelta(hours=2), longest_stream=timedelta(minutes=5))
GONE = "The model's image is not there any more."
ACTIVE = config(phase=ConfigPhase.ACTIVE)
ONCE_BUILT = (EntityPhase.STARTING, EntityPhase.READY, EntityPhase.IDLE, EntityPhase.RECOVERING)


def plan(world, observation, now=NOW) -> Plan:
    return planning.plan(world, observation, now, LIMITS)


def rebuilt(phase: EntityPhase = EntityPhase.IDLE, **changes) -> ServedEntity:
    """An entity that waits for another build, as the step that ordered it wrote it."""
    step = with_rebuild(Plan(), entity(phase=phase, **changes), GONE, "again", NOW)
    return step.entities[0]


def test_what_is_gone_is_built_again_once_however_many_replicas_miss_it():
    one = entity(phase=EntityPhase.READY, desired=2)
    step = with_rebuild(with_rebuild(Plan(), one, GONE, "again", NOW), one, GONE, "and again", NOW)
    assert [(e.id, e.build_id, e.phase, e.artifacts) for e in step.entities] == [
        ("e1", "again", EntityPhase.READY, None)
    ]
    assert step.order_builds == step.entities
    assert step.entities[0].message == f"{GONE} The model is built again."
    assert step.look_again == BUSY


@pytest.mark.parametrize("phase", ONCE_BUILT)
def test_meanwhile_no_replica_is_started_and_what_runs_is_kept(phase: EntityPhase):
    world = deployment(
        ACTIVE, rebuilt(phase, desired=3), replica(), replica("r2"), replica("r3", node="lost")
    )
    step = plan(world, seen(observed(), build("again", BuildState.BUILDING, step="Making the image")))
    assert (step.ensure, step.place, step.new_replicas) == ((), (), ())
    assert step.stopping == ("r3",), "its node is gone with its container"
    assert step.look_again == BUSY


@pytest.mark.parametrize("phase", [EntityPhase.IDLE, EntityPhase.RECOVERING])
def test_how_far_the_new_build_is_is_said(phase: EntityPhase):
    step = plan(
        deployment(ACTIVE, rebuilt(phase)), seen(build("again", BuildState.BUILDING, step="Making the image"))
    )
    assert [e.message for e in step.entities] == [
        "The model's image is gone, and built again: Making the image"
    ]
    assert step.entities[0].phase is phase


@pytest.mark.parametrize("phase", ONCE_BUILT)
def test_what_the_new_build_made_is_started(phase: EntityPhase):
    step = plan(deployment(ACTIVE, rebuilt(phase)), seen(build("again")))
    assert step.entities[0].artifacts == ARTIFACTS
    assert [(e.id, count) for e, count in step.new_replicas] == [("e1", 1)]


def test_a_new_build_that_fails_is_said_to_those_that_wait_and_tried_again_later():
    failed = seen(build("again", BuildState.FAILED, reason="MLflow does not answer."))
    step = plan(deployment(ACTIVE, rebuilt()), failed)
    told = step.entities[0]
    assert told.phase is EntityPhase.RECOVERING
    assert told.message.endswith("tried again after 5 minutes. MLflow does not answer.")
    assert step.rebuild == ()
    assert step.route is not None
    assert step.route.served_entities[0].problem == told.message
    assert not step.route.served_entities[0].holds
    later = plan(deployment(ACTIVE, told), failed, NOW + TRY_AGAIN_AFTER)
    assert [e.id for e in later.rebuild] == ["e1"]


def test_requests_are_held_while_it_is_built_again_after_its_last_replica_died():
    step = plan(deployment(ACTIVE, rebuilt(EntityPhase.RECOVERING)), seen())
    assert step.route is not None
    assert step.route.served_entities[0].problem == ""
    assert step.route.served_entities[0].holds


def test_a_first_deployment_fails_with_its_new_build():
    failed = seen(build("again", BuildState.FAILED, reason="The model does not load."))
    step = plan(deployment(config(), rebuilt(EntityPhase.STARTING)), failed)
    assert step.entities[0].phase is EntityPhase.FAILED
    assert "The model does not load." in step.entities[0].message


def test_one_at_zero_stays_there_while_it_is_built_again():
    world = deployment(ACTIVE, replace(rebuilt(), desired_replicas=0, min_replicas=0))
    failed = seen(build("again", BuildState.FAILED, reason="MLflow does not answer."))
    step = plan(world, failed, NOW + TRY_AGAIN_AFTER)
    assert [e.phase for e in step.entities] == [EntityPhase.IDLE]
    assert step.rebuild == (), "nobody wants it now"
    again = plan(deployment(ACTIVE, step.entities[0]), failed, NOW + TRY_AGAIN_AFTER)
    assert again.look_again == SETTLED, "nothing of it is under way"


def test_a_new_build_nobody_knows_is_ordered_again():
    world = deployment(ACTIVE, rebuilt())
    step = plan(world, seen(build("again", None)), NOW + timedelta(seconds=15))
    assert [e.build_id for e in step.order_builds] == ["again"]
