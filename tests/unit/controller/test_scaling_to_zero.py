from datetime import timedelta

import pytest
from tests.factories import NOW, config, deployment, entity, observed, replica, seen

from servery_common.contracts.states import ReplicaState
from servery_controller.api.present import detailed
from servery_controller.domain import planning
from servery_controller.domain.endpoint import ConfigPhase, EntityPhase
from servery_controller.domain.planning import BUSY, SETTLED, Limits, Plan

LIMITS = Limits(timedelta(hours=2), longest_stream=timedelta(minutes=5))


def plan(world, observation) -> Plan:
    return planning.plan(world, observation, NOW, LIMITS)


def serving(*replicas, phase=EntityPhase.READY, desired=1, **changes):
    return deployment(
        config(phase=ConfigPhase.ACTIVE),
        entity(phase=phase, desired=desired, min_replicas=0, **changes),
        *replicas,
    )


def phases(step: Plan) -> list[EntityPhase]:
    return [e.phase for e in step.entities]


def test_an_entity_that_nobody_asks_for_sleeps_and_gateways_hold_what_comes():
    step = plan(serving(replica(), desired=0), seen(observed()))
    assert phases(step) == [EntityPhase.IDLE]
    assert step.stopping == ("r1",)
    assert step.route is not None
    assert step.route.status == "serving"
    assert step.route.served_entities[0].holds


def test_gateways_are_told_to_hold_before_the_last_replica_is_told_to_stop():
    first = plan(serving(replica(), desired=0), seen(observed()))
    assert first.stop == (), "it is stopped by the step after the one that published the route"
    second = plan(serving(replica(stopping=True), desired=0, phase=EntityPhase.IDLE), seen(observed()))
    assert [r.id for r in second.stop] == ["r1"]
    assert second.route is not None
    assert second.route.served_entities[0].replicas == ()


def test_an_entity_at_zero_is_at_rest_and_the_endpoint_is_ready():
    world = serving(desired=0, phase=EntityPhase.IDLE, message="Scaled to zero. A request wakes it.")
    step = plan(world, seen())
    assert step.entities == ()
    assert step.new_replicas == ()
    assert step.look_again == SETTLED
    answer = detailed(world, "http://host")
    assert answer["state"]["ready"] == "READY"
    state = answer["config"]["served_entities"][0]["state"]
    assert state["deployment"] == "DEPLOYMENT_READY"
    assert "Scaled to zero" in state["deployment_state_message"]


def test_one_that_is_woken_gets_a_replica_and_still_holds():
    step = plan(serving(desired=1, phase=EntityPhase.IDLE), seen())
    assert [(e.id, count) for e, count in step.new_replicas] == [("e1", 1)]
    assert step.look_again == BUSY
    assert step.route is not None
    assert step.route.served_entities[0].holds


def test_what_was_held_is_released_by_the_step_that_sees_the_replica_ready():
    step = plan(serving(replica(), phase=EntityPhase.IDLE), seen(observed()))
    assert phases(step) == [EntityPhase.READY]
    assert step.route is not None
    entity_route = step.route.served_entities[0]
    assert [r.replica_id for r in entity_route.replicas] == ["r1"]
    assert not entity_route.holds


def test_a_start_that_failed_is_told_to_gateways_at_once_with_the_reason():
    failed = observed(state=ReplicaState.FAILED, reason="ValueError: bad pickle")
    step = plan(serving(replica(), phase=EntityPhase.IDLE), seen(failed))
    assert phases(step) == [EntityPhase.RECOVERING]
    assert "ValueError: bad pickle" in step.entities[0].message
    assert step.route is not None
    assert step.route.served_entities[0].problem == "ValueError: bad pickle"
    assert not step.route.served_entities[0].holds
    assert [r.id for r, _ in step.ensure] == ["r1"], "it is tried again all the same"


@pytest.mark.parametrize(("never_ready", "problem"), [(True, "ValueError: bad pickle"), (False, "")])
def test_one_that_never_served_says_why_while_it_is_started_once_more_and_one_that_did_may_be_back_soon(
    never_ready: bool, problem: str
):
    again = observed(state=ReplicaState.RESTARTING, reason="ValueError: bad pickle")
    again = again.model_copy(update={"never_ready": never_ready})
    step = plan(serving(replica(), phase=EntityPhase.RECOVERING), seen(again))
    assert step.route is not None
    assert step.route.served_entities[0].problem == problem


def test_one_that_cannot_be_started_sleeps_again_when_nobody_asks_any_more():
    failed = observed(state=ReplicaState.FAILED, reason="ValueError: bad pickle")
    step = plan(serving(replica(), phase=EntityPhase.RECOVERING, desired=0), seen(failed))
    assert phases(step) == [EntityPhase.IDLE]
    assert step.route is not None
    assert step.route.served_entities[0].problem == ""


def test_the_replica_of_a_drained_entity_that_is_asked_for_again_is_not_brought_back():
    world = serving(replica("r1", stopping=True), phase=EntityPhase.IDLE, desired=1)
    step = plan(world, seen(observed("r1", ReplicaState.DRAINING)))
    assert [(e.id, count) for e, count in step.new_replicas] == [("e1", 1)]
    assert phases(step) == [EntityPhase.IDLE], "a draining replica wakes nobody"


def test_of_too_many_replicas_those_that_do_not_work_yet_go_first():
    world = serving(replica("r1"), replica("r2"), replica("r3"), desired=1)
    seen_now = seen(
        observed("r1", ReplicaState.STARTING), observed("r2"), observed("r3", ReplicaState.RESTARTING)
    )
    assert plan(world, seen_now).stopping == ("r1", "r3")


def held(*replicas, observations=()) -> bool:
    """Whether gateways hold requests for an entity that lost its replicas."""
    step = plan(serving(*replicas, phase=EntityPhase.RECOVERING), seen(*observations))
    assert step.route is not None
    return step.route.served_entities[0].holds


def test_requests_are_held_while_what_was_lost_with_a_worker_starts_anew():
    starting = observed(state=ReplicaState.STARTING)
    assert held(replica(), observations=[starting])


def test_requests_are_not_held_when_nothing_starts_or_something_speaks_against_it():
    assert not held(replica(node=None)), "there may be no worker for long"
    for state in (ReplicaState.RESTARTING, ReplicaState.FAILED):
        assert not held(replica(), observations=[observed(state=state, reason="exited with status 1")])
        both = [observed("r1", ReplicaState.STARTING), observed("r2", state, reason="exited with status 1")]
        assert not held(replica("r1"), replica("r2"), observations=both)
