import pytest

from servery_common.contracts.states import ReplicaState as S
from servery_worker.lifecycle import (
    TRANSITIONS,
    Happening,
    IllegalTransition,
    after,
)


def test_every_state_has_its_row():
    assert set(TRANSITIONS) == set(S)


def test_a_model_that_never_loaded_has_failed_and_one_that_did_is_brought_back():
    assert after(S.STARTING, Happening.FAILED) is S.FAILED
    assert after(S.RESTARTING, Happening.FAILED) is S.RESTARTING
    assert after(S.FAILED, Happening.ORDERED_AGAIN) is S.RESTARTING


def test_a_draining_replica_stays_draining_whatever_its_runner_does():
    for happening in (Happening.LOADED, Happening.FAILED, Happening.DIED, Happening.DRAIN):
        assert after(S.DRAINING, happening) is S.DRAINING


def test_every_state_can_be_stopped():
    assert {after(state, Happening.STOPPED) for state in S} == {S.STOPPED}


def test_what_cannot_happen_is_an_error():
    with pytest.raises(IllegalTransition):
        after(S.STOPPED, Happening.LOADED)
