from dataclasses import replace
from datetime import timedelta

import pytest
from tests.factories import ARTIFACTS, NOW, build, config, deployment, entity, observed, replica, seen, spec

from servery_common.contracts.states import ReplicaState
from servery_controller.domain import planning
from servery_controller.domain.adoption import adoptable, adopting
from servery_controller.domain.endpoint import ConfigPhase, EntityPhase, Route
from servery_controller.domain.planning import Limits, Plan

LIMITS = Limits(timedelta(hours=2), longest_stream=timedelta(minutes=5))
HALVES = (Route("a", 50), Route("b", 50))
TENTHS = (Route("a", 10), Route("b", 90))


def plan(world, observation) -> Plan:
    return planning.plan(world, observation, NOW, LIMITS)


def two_models(*parts, phase=EntityPhase.READY):
    return deployment(
        config(1, ConfigPhase.ACTIVE, HALVES),
        entity("a1", version=1, name="a", phase=phase, desired=2),
        entity("b1", version=1, name="b", phase=phase),
        *parts,
    )


def test_entities_that_stay_as_they_are_go_on_with_their_replicas():
    assert adoptable([spec(name="a"), spec(name="b")], TENTHS, two_models()).keys() == {"a", "b"}


def test_a_changed_model_is_deployed_and_the_one_beside_it_stays():
    changed = [spec(name="a", entity_version="2"), spec(name="b")]
    assert adoptable(changed, HALVES, two_models()).keys() == {"b"}


def test_another_environment_needs_other_replicas():
    changed = [spec(name="a", environment_vars={"K": "v"}), spec(name="b")]
    assert adoptable(changed, HALVES, two_models()).keys() == {"b"}


def test_another_size_does_not():
    changed = [spec(name="a", workload_size="Medium"), spec(name="b")]
    assert adoptable(changed, HALVES, two_models()).keys() == {"a", "b"}


def test_a_config_that_is_the_active_one_over_again_is_deployed_anew():
    assert adoptable([spec(name="a"), spec(name="b")], HALVES, two_models()) == {}


@pytest.mark.parametrize("phase", [EntityPhase.RECOVERING, EntityPhase.ABORTED])
def test_what_does_not_work_is_not_gone_on_with(phase):
    assert adoptable([spec(name="a"), spec(name="b")], TENTHS, two_models(phase=phase)) == {}


def split_under_way(*, source_phase=EntityPhase.READY, desired=2):
    """Config 2 changes only the split; nothing of it was looked at yet."""
    source = entity("a1", version=1, name="a", phase=source_phase, desired=desired, min_replicas=0)
    other = entity("b1", version=1, name="b", phase=EntityPhase.READY)
    return deployment(
        config(1, ConfigPhase.ACTIVE, HALVES),
        config(2, ConfigPhase.PENDING, TENTHS),
        source,
        other,
        adopting(entity("a2", version=2, name="a", min_replicas=0), source),
        adopting(entity("b2", version=2, name="b"), other),
        replica("r1", "a1"),
        replica("r2", "a1"),
        replica("r3", "b1"),
    )


ALL_READY = seen(observed("r1"), observed("r2"), observed("r3"))


def test_a_split_changes_in_one_step_and_the_replicas_stay():
    step = plan(split_under_way(), ALL_READY)
    assert {c.version: c.phase for c in step.configs} == {1: ConfigPhase.RETIRED, 2: ConfigPhase.ACTIVE}
    assert sorted(step.adopt) == [("a1", "a2"), ("b1", "b2")]
    assert step.stopping == step.new_replicas == step.place == step.ensure == ()
    assert step.route is not None
    shown = {e.served_entity_id: e for e in step.route.served_entities}
    assert {i: (e.traffic_percentage, len(e.replicas)) for i, e in shown.items()} == {
        "a2": (10, 2),
        "b2": (90, 1),
    }
    assert shown["a2"].desired_replicas == 2


def test_an_entity_that_sleeps_goes_on_sleeping():
    step = plan(split_under_way(source_phase=EntityPhase.IDLE, desired=0), seen(observed("r3")))
    assert {e.id: e.phase for e in step.entities}["a2"] is EntityPhase.IDLE
    assert {c.version: c.phase for c in step.configs}[2] is ConfigPhase.ACTIVE


def test_an_heir_gets_no_replicas_while_it_waits_for_another_entity():
    world = split_under_way()
    new = entity("c2", version=2, name="c")
    step = plan(replace(world, entities=(*world.entities, new)), ALL_READY)
    assert step.new_replicas == step.adopt == step.configs == ()
    assert {e.id: e.phase for e in step.entities} == {"a2": EntityPhase.READY, "b2": EntityPhase.READY}


def test_a_new_version_starts_with_what_the_present_traffic_needs():
    world = deployment(
        config(1, ConfigPhase.ACTIVE, (Route("old", 100),)),
        config(2, ConfigPhase.PENDING, (Route("new", 75), Route("old", 25))),
        entity("e1", version=1, name="old", phase=EntityPhase.READY, desired=4),
        entity("e2", version=2, name="new", build_id="b"),
        replica("r1", "e1"),
    )
    step = plan(world, seen(observed("r1"), build("b")))
    started = next(e for e in step.entities if e.id == "e2")
    assert started.desired_replicas == 3
    assert started.artifacts == ARTIFACTS
    assert [(e.id, count) for e, count in step.new_replicas if e.id == "e2"] == [("e2", 3)]


def test_a_new_version_of_one_at_zero_is_seen_to_work_before_it_sleeps():
    world = deployment(
        config(1, ConfigPhase.ACTIVE, (Route("iris-1", 100),)),
        config(2, ConfigPhase.PENDING),
        entity("e1", version=1, phase=EntityPhase.IDLE, desired=0, min_replicas=0),
        entity("e2", version=2, min_replicas=0, build_id="b"),
    )
    step = plan(world, seen(build("b")))
    assert next(e for e in step.entities if e.id == "e2").desired_replicas == 1


def test_a_new_version_begins_with_what_it_is_promised_when_there_is_no_place_for_more():
    """The replicas it is to replace have the places, and keep them until it is ready."""
    world = deployment(
        config(1, ConfigPhase.ACTIVE, (Route("old", 100),)),
        config(2, ConfigPhase.PENDING, (Route("new", 100),)),
        entity("e1", version=1, name="old", phase=EntityPhase.READY, desired=3),
        entity("e2", version=2, name="new", phase=EntityPhase.STARTING, desired=3),
        replica("r1", "e1"),
        replica("r2", "e2"),
        replica("r3", "e2", node=None),
        replica("r4", "e2", node=None),
    )
    one = (observed("r1"), observed("r2", entity_id="e2"))
    assert plan(world, seen(*one)).configs[-1].phase is ConfigPhase.ACTIVE
    started = replace(world, replicas=(*world.replicas[:3], replica("r4", "e2")))
    assert plan(started, seen(*one)).configs == (), "one that has a place is waited for"


def test_what_is_being_woken_when_it_is_taken_over_goes_on_being_woken():
    """It was READY when the new config began; its requests are held through the switch."""
    world = split_under_way(source_phase=EntityPhase.IDLE, desired=1)
    world = replace(
        world,
        entities=tuple(
            replace(e, phase=EntityPhase.READY) if e.id in ("a2", "b2") else e for e in world.entities
        ),
    )
    step = plan(world, seen(observed("r1", ReplicaState.STARTING), observed("r3")))
    assert {c.version: c.phase for c in step.configs}[2] is ConfigPhase.ACTIVE
    assert {e.id: e.phase for e in step.entities}["a2"] is EntityPhase.IDLE
    assert step.route is not None
    assert {e.name: e.holds for e in step.route.served_entities} == {"a": True, "b": False}
