"""What a rollout that is under way says of itself, and how long it waits when there is little or nothing to judge."""

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.factories import NOW, observed, replica
from tests.unit.controller.rollouts import GUARDED, plan, update

from servery_controller.domain.endpoint import ConfigPhase, EntityHealth, RolloutStep
from servery_controller.domain.planning import Plan

NONE = EntityHealth()
FEW = EntityHealth(requests=12, errors=0, total_ms=120)
ONE_IS_MISSING = update(step=1, extra=(replica("r3", "e2"),))
"""At the last step, and one of two replicas of the new version is being replaced."""


def told(step: Plan) -> str:
    """The message of the new served entity."""
    (message,) = (e.message for e in step.entities if e.id == "e2")
    return message


def saying(world, message: str):
    """The rollout whose new served entity says something."""
    changed = (replace(e, message=message) if e.id == "e2" else e for e in world.entities)
    return replace(world, entities=tuple(changed))


@pytest.mark.parametrize("phase", [ConfigPhase.PENDING, ConfigPhase.ROLLING])
def test_a_rollout_says_at_which_step_it_is_until_when_and_what_comes_then(phase):
    assert told(plan(update(phase=phase))) == (
        "Rollout step 1 of 3: config version 2 gets 10 % of the traffic until 00:01:00 UTC, then 50 %,"
        " unless it does worse than version 1."
    )


def test_the_next_step_is_told_of_with_the_split_that_it_brings():
    assert told(plan(update(), after=60)) == (
        "Rollout step 2 of 3: config version 2 gets 50 % of the traffic until 00:02:00 UTC, then 100 %,"
        " unless it does worse than version 1."
    )


def test_a_step_that_ends_another_day_says_which():
    days = tuple({**dict(GUARDED), "servery.rollout_step_seconds": "86400"}.items())
    assert "until 2026-01-02 00:00:00 UTC" in told(plan(update(tags=days)))


def test_a_step_with_too_few_requests_says_how_many_it_waits_for_and_how_long():
    assert told(plan(update(), new=FEW, after=61)) == (
        "Rollout step 1 of 3: config version 2 gets 10 % of the traffic."
        " After 38 more requests to it, or at 00:10:00 UTC, it gets 50 %, unless it does worse than version 1."
    )


def test_what_is_told_is_written_only_when_it_changes():
    world = update()
    first = plan(world, after=1)
    assert first.entities
    assert plan(saying(world, told(first)), after=30).entities == ()


def test_a_problem_comes_before_the_step():
    world = saying(ONE_IS_MISSING, "Has 1 of 2 replicas. There is no room.")
    assert plan(world, after=1).entities == ()


def test_of_a_rollout_that_has_ended_nothing_is_left():
    for world in (update(step=1), ONE_IS_MISSING):
        last = plan(saying(world, "Rollout step 2 of 3: …"), after=60)
        assert {c.version: c.phase for c in last.configs}[2] is ConfigPhase.ACTIVE
        assert told(last) == ""


def test_a_step_nobody_sends_anything_to_takes_no_longer_than_its_own_length():
    assert plan(update(), NONE, NONE, after=59, counted=59).configs == ()
    assert [c.rollout for c in plan(update(), NONE, NONE, after=60, counted=60).configs] == [
        RolloutStep(1, NOW + timedelta(seconds=60))
    ]
    assert plan(update(), FEW, NONE, after=60, counted=60).configs == (), (
        "the old one is called: the new one will be"
    )


def test_a_version_that_has_no_replica_just_then_is_waited_for():
    step = plan(update(), NONE, NONE, after=60, counted=60, observations=(observed("r1"),))
    assert step.configs == ()


def test_an_idle_endpoint_is_told_when_its_step_ends():
    message = told(plan(update(), NONE, NONE, after=59, counted=59))
    assert "until 00:01:00 UTC, then 50 %" in message


def test_an_idle_endpoint_that_was_not_looked_at_for_the_whole_step_names_no_moment_that_is_over():
    message = told(plan(update(), NONE, NONE, after=60, counted=59))
    assert "When all gateways have told that nobody calls it, it gets 50 %" in message


def test_a_request_that_is_not_answered_yet_is_waited_for():
    assert plan(update(), NONE, replace(NONE, in_flight=1), after=60, counted=60).configs == ()


def test_a_controller_that_took_over_does_not_take_what_it_did_not_hear_for_silence():
    assert plan(update(), NONE, NONE, after=60, counted=59).configs == ()


def test_steps_that_are_shorter_than_reports_wait_for_them():
    quick = tuple({**dict(GUARDED), "servery.rollout_step_seconds": "1"}.items())
    assert plan(update(tags=quick), NONE, NONE, after=9, counted=9).configs == ()
    assert plan(update(tags=quick), NONE, NONE, after=10, counted=10).configs != ()
