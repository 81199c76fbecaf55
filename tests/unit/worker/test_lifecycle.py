import pytest

from servery_common.contracts.states import ReplicaState as S
from servery_worker.lifecycle import (
    LONGEST_DELAY_SECONDS,
    TRANSITIONS,
    Happening,
    IllegalTransition,
    after,
    restart_delay,
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


def test_the_first_replacement_comes_at_once_and_later_ones_ever_later_up_to_a_limit():
    delays = [restart_delay(fruitless) for fruitless in range(12)]
    assert delays[:5] == [0.0, 0.0, 0.5, 1.0, 2.0]
    assert delays == sorted(delays)
    assert delays[-1] == restart_delay(10**6) == LONGEST_DELAY_SECONDS
