"""The life of a build."""

import pytest

from servery_builder.domain.build import TRANSITIONS, BuildEvent, FailureCode, is_terminal, next_state
from servery_common.contracts.builds import BuildFailed
from servery_common.contracts.states import BuildState


def test_every_state_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(BuildState)


@pytest.mark.parametrize("state", [BuildState.SUCCEEDED, BuildState.FAILED, BuildState.CANCELED])
@pytest.mark.parametrize("event", BuildEvent)
def test_a_finished_build_never_changes(state: BuildState, event: BuildEvent) -> None:
    assert is_terminal(state)
    assert next_state(state, event) is None


def test_a_build_is_claimed_taken_over_given_back_and_finished() -> None:
    assert next_state(BuildState.QUEUED, BuildEvent.CLAIMED) is BuildState.BUILDING
    assert next_state(BuildState.BUILDING, BuildEvent.CLAIMED) is BuildState.BUILDING
    assert next_state(BuildState.BUILDING, BuildEvent.RELEASED) is BuildState.QUEUED
    assert next_state(BuildState.BUILDING, BuildEvent.SUCCEEDED) is BuildState.SUCCEEDED
    assert next_state(BuildState.QUEUED, BuildEvent.SUCCEEDED) is None


@pytest.mark.parametrize("code", FailureCode)
def test_every_failure_code_can_be_sent(code: FailureCode) -> None:
    assert BuildFailed(build_id="b1", reason="why", code=code.value).code == code
