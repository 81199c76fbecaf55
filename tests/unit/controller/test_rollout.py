from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.factories import NOW, config, deployment, entity, observed, replica
from tests.unit.controller.rollouts import BOTH_READY, GUARDED, plan, update, weights

from servery_common.contracts.states import ReplicaState
from servery_controller.domain.adoption import adopting
from servery_controller.domain.endpoint import ConfigPhase, EntityHealth, EntityPhase, RolloutStep, Route
from servery_controller.domain.happenings import EventStatus, events_of
from servery_controller.domain.rollout import lower_bound


def test_a_guarded_rollout_begins_with_the_first_share():
    step = plan(update(phase=ConfigPhase.PENDING))
    assert [(c.version, c.phase, c.rollout) for c in step.configs] == [
        (2, ConfigPhase.ROLLING, RolloutStep(0, NOW))
    ]
    assert weights(step) == {"old": 9000, "new": 1000}
    assert step.stopping == ()
    (event,) = events_of(update(phase=ConfigPhase.PENDING), step)
    assert (event.status, event.message) == (
        EventStatus.IN_PROGRESS,
        "Config version 2 gets 10 % of the traffic.",
    )


def test_without_the_option_the_traffic_moves_at_once():
    step = plan(update(phase=ConfigPhase.PENDING, tags=()))
    assert {c.version: c.phase for c in step.configs} == {1: ConfigPhase.RETIRED, 2: ConfigPhase.ACTIVE}


def test_a_first_deployment_has_nothing_to_be_compared_with():
    world = deployment(config(), entity(phase=EntityPhase.STARTING), replica(), tags=GUARDED)
    assert [c.phase for c in plan(world, observations=(observed(),)).configs] == [ConfigPhase.ACTIVE]


def test_a_version_that_does_well_gets_more_after_each_step_and_all_at_the_end():
    assert plan(update(), after=59).configs == ()
    second = plan(update(), after=60)
    assert [c.rollout for c in second.configs] == [RolloutStep(1, NOW + timedelta(seconds=60))]
    assert weights(second) == {"old": 5000, "new": 5000}
    last = plan(update(step=1), after=60)
    assert {c.version: c.phase for c in last.configs} == {1: ConfigPhase.RETIRED, 2: ConfigPhase.ACTIVE}
    assert all(c.rollout is None for c in last.configs)
    assert weights(last) == {"new": 100}
    assert last.stopping == ("r1",)


def test_a_version_that_fails_is_rolled_back_before_the_step_ends_and_says_why():
    world = update()
    step = plan(world, new=EntityHealth(requests=20, errors=20, total_ms=200), after=4)
    assert {c.version: c.phase for c in step.configs} == {2: ConfigPhase.FAILED}
    (failed,) = step.entities
    assert failed.phase is EntityPhase.FAILED
    assert "20 of 20 answers of the new version were errors, and 2 of 1000 of the old one" in failed.message
    assert "had 10 % of the traffic" in failed.message
    assert weights(step) == {"old": 100}
    assert step.stopping == ("r2",)
    assert any("failed" in e.message and "20 of 20" in e.message for e in events_of(world, step))


def test_a_version_that_is_slow_is_rolled_back():
    step = plan(update(), new=EntityHealth(requests=200, errors=0, total_ms=200 * 31.0), after=5)
    assert {c.version: c.phase for c in step.configs} == {2: ConfigPhase.FAILED}
    assert "took 31.0 ms in the new version and 10.0 ms in the old one" in step.entities[0].message


@pytest.mark.parametrize(
    "health",
    [
        EntityHealth(requests=5, errors=1, total_ms=50),  # one unlucky request
        EntityHealth(requests=300, errors=4, total_ms=3000),  # 1.3 % may well be 1.2 %
        EntityHealth(requests=300, errors=0, total_ms=300 * 14.9),  # within ratio and slack
        EntityHealth(requests=10, errors=0, total_ms=10 * 500.0),  # too few to compare means
    ],
)
def test_what_chance_explains_rolls_nothing_back(health):
    assert plan(update(), new=health, after=5).configs == ()


def test_errors_that_both_versions_have_are_nobodys_fault():
    bad = EntityHealth(requests=1000, errors=300, total_ms=10_000)
    assert plan(update(), old=bad, new=replace(bad, requests=100, errors=32, total_ms=1000)).configs == ()


def test_a_version_with_too_few_requests_waits_but_not_for_ever():
    few = EntityHealth(requests=3, errors=0, total_ms=30)
    assert plan(update(), new=few, after=599).configs == ()
    assert [c.rollout for c in plan(update(), new=few, after=600).configs] == [
        RolloutStep(1, NOW + timedelta(seconds=600))
    ]


def test_a_version_that_cannot_be_started_again_is_rolled_back():
    died = observed("r2", entity_id="e2").model_copy(
        update={"state": ReplicaState.FAILED, "reason": "it has no model"}
    )
    step = plan(update(), after=1, observations=(observed("r1"), died))
    assert {c.version: c.phase for c in step.configs} == {2: ConfigPhase.FAILED}
    assert "it has no model" in step.entities[0].message


def test_a_process_that_is_started_again_is_no_reason_to_roll_back():
    again = observed("r2", entity_id="e2").model_copy(
        update={"state": ReplicaState.RESTARTING, "reason": "it exited"}
    )
    step = plan(update(), after=1, observations=(observed("r1"), again))
    assert step.configs == ()


def test_while_both_serve_neither_is_scaled_down():
    route = plan(update(), after=1).route
    assert route is not None
    assert [(e.min_replicas, e.desired_replicas) for e in route.served_entities] == [(1, 1), (1, 1)]


def test_what_goes_on_with_its_replicas_keeps_its_part_of_both_splits():
    kept = entity("k1", version=1, name="kept", phase=EntityPhase.READY)
    world = deployment(
        config(1, ConfigPhase.ACTIVE, (Route("old", 50), Route("kept", 50))),
        replace(
            config(2, ConfigPhase.ROLLING, (Route("new", 80), Route("kept", 20))),
            rollout=RolloutStep(0, NOW),
        ),
        entity("e1", version=1, name="old", phase=EntityPhase.READY),
        kept,
        entity("e2", version=2, name="new", phase=EntityPhase.READY),
        replace(adopting(entity("k2", version=2, name="kept"), kept), phase=EntityPhase.READY),
        replica("r1", "e1"),
        replica("r2", "e2"),
        replica("r3", "k1"),
        tags=GUARDED,
    )
    step = plan(world, observations=(*BOTH_READY, observed("r3", entity_id="k1")), after=1)
    assert weights(step) == {"old": 4500, "kept": 4700, "new": 800}
    assert step.new_replicas == ()


def test_a_rollout_ends_at_once_when_it_is_no_longer_to_be_guarded():
    step = plan(update(tags=(("servery.rollout", "immediate"),)), after=1)
    assert {c.version: c.phase for c in step.configs} == {1: ConfigPhase.RETIRED, 2: ConfigPhase.ACTIVE}


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_lower_bound_is_a_share_below_what_was_seen(errors, others):
    bound = lower_bound(errors, errors + others)
    assert 0 <= bound <= (errors / (errors + others) if errors + others else 0) + 1e-12
