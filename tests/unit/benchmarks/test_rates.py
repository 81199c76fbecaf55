import math

import pytest
from tests.benchmarks.load.client import Outcome
from tests.benchmarks.load.rates import normal_from, since, steady_rate

USUAL_MS = 20.0


def answered(*seconds: float, took: float = 10.0) -> Outcome:
    """One answer at each time, in a load of five seconds."""
    return Outcome(seconds=5.0, done_at=list(seconds), latencies_ms=[took] * len(seconds))


EACH_SECOND = (0.5, 1.5, 2.5, 3.5, 4.5)


def test_the_steady_rate_leaves_out_what_came_before_and_after():
    assert steady_rate([0.1, 0.2, 2.5, 3.0, 4.0, 4.1], since=2.0, until=4.0) == 1.5


def test_latencies_since_a_time_are_those_of_the_answers_that_came_later():
    outcome = Outcome(done_at=[0.5, 2.0, 1.5], latencies_ms=[100.0, 7.0, 8.0])
    assert since(outcome, 1.0) == [7.0, 8.0]


def test_a_load_that_never_was_disturbed_is_normal_from_its_start():
    assert normal_from(answered(*EACH_SECOND), USUAL_MS) == 0.0


@pytest.mark.parametrize(("refused_at", "normal"), [(0.9, 1.0), (2.2, 3.0), (4.9, math.inf)])
def test_it_is_normal_after_the_second_of_the_last_refusal(refused_at: float, normal: float):
    outcome = answered(*EACH_SECOND)
    outcome.rejected_at = [0.1, refused_at]
    assert normal_from(outcome, USUAL_MS) == normal


def test_it_is_normal_after_the_last_slow_second():
    outcome = answered(*EACH_SECOND)
    outcome.latencies_ms[1] = 2 * USUAL_MS
    assert normal_from(outcome, USUAL_MS) == 2.0


def test_a_second_without_an_answer_is_not_normal():
    assert normal_from(answered(0.5, 1.5, 3.5, 4.5), USUAL_MS) == 3.0


@pytest.mark.parametrize("what", ["wrong", "lost", "unsent"])
def test_what_got_no_right_answer_is_never_normal(what: str):
    outcome = answered(*EACH_SECOND)
    setattr(outcome, what, 1)
    assert normal_from(outcome, USUAL_MS) == math.inf
