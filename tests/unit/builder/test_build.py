"""The life of a build."""

import pytest

from servery_builder.domain.build import TRANSITIONS, BuildEvent, Transition
from servery_common.contracts.builds import BuildFailed, FailureCode
from servery_common.contracts.states import BuildState


def test_every_event_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(BuildEvent)


@pytest.mark.parametrize("transition", TRANSITIONS.values(), ids=TRANSITIONS)
def test_a_finished_build_never_changes(transition: Transition) -> None:
    assert not set(transition.before) & {BuildState.SUCCEEDED, BuildState.FAILED}


def test_a_build_is_claimed_taken_over_given_back_and_finished_while_it_is_built() -> None:
    assert set(TRANSITIONS[BuildEvent.CLAIMED].before) == {BuildState.QUEUED, BuildState.BUILDING}
    assert TRANSITIONS[BuildEvent.RELEASED] == Transition((BuildState.BUILDING,), BuildState.QUEUED)
    assert TRANSITIONS[BuildEvent.SUCCEEDED] == Transition((BuildState.BUILDING,), BuildState.SUCCEEDED)
    assert TRANSITIONS[BuildEvent.FAILED] == Transition((BuildState.BUILDING,), BuildState.FAILED)


@pytest.mark.parametrize("code", FailureCode)
def test_every_failure_code_can_be_sent(code: FailureCode) -> None:
    assert BuildFailed(build_id="b1", reason="why", code=code.value).code == code
