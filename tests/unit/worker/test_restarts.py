import pytest

from servery_worker.restarts import HEALTHY_SECONDS, LONGEST_DELAY_SECONDS, Restarts

SOON = HEALTHY_SECONDS / 10


def delays(*ends: tuple[float, int]) -> list[float]:
    """The pause after each of these processes: seconds it was ready, requests it answered."""
    restarts, found = Restarts(), list[float]()
    for ready_seconds, answered in ends:
        restarts = restarts.after(ready_seconds=ready_seconds, answered=answered)
        found.append(restarts.delay)
    return found


@pytest.mark.parametrize(
    ("what", "ends", "expected"),
    [
        ("does not load any more", [(0.0, 0)] * 6, [0.0, 0.5, 1.0, 2.0, 4.0, 8.0]),
        ("crashes on every request", [(SOON, 0)] * 4, [0.0, 0.5, 1.0, 2.0]),
        ("answers some and crashes soon", [(SOON, 5)] * 6, [0.0, 0.0, 0.0, 0.25, 0.25, 0.25]),
        ("is killed now and then", [(HEALTHY_SECONDS, 0)] * 6, [0.0] * 6),
        ("serves for a while before each end", [(HEALTHY_SECONDS, 1000)] * 6, [0.0] * 6),
        ("is healthy again", [*[(0.0, 0)] * 4, (HEALTHY_SECONDS, 0), (0.0, 0)], [0, 0.5, 1, 2, 0, 0.5]),
        ("answers at last", [*[(SOON, 0)] * 4, (SOON, 1), (SOON, 0)], [0, 0.5, 1, 2, 0.25, 0.25]),
    ],
)
def test_when_the_next_process_is_started_of_a_model_that(
    what: str, ends: list[tuple[float, int]], expected: list[float]
):
    assert delays(*ends) == expected


def test_no_pause_is_longer_than_the_longest():
    assert delays(*[(0.0, 0)] * 100)[-1] == LONGEST_DELAY_SECONDS
    assert Restarts(failures=10**6, fruitless=10**6).delay == LONGEST_DELAY_SECONDS


def test_the_first_end_needs_no_explanation_and_later_ones_say_how_many_and_when_it_goes_on():
    once = Restarts().after(ready_seconds=1.0, answered=0)
    assert once.explain("it exited with status 3") == "it exited with status 3"
    thrice = once.after(ready_seconds=1.0, answered=0).after(ready_seconds=1.0, answered=0)
    assert thrice.explain("it exited with status 3") == (
        "it exited with status 3 (3 times in a row; started again in 1 s)"
    )
    served = once.after(ready_seconds=1.0, answered=1)
    assert served.explain("it crashed") == "it crashed (2 times in a row; started again at once)"
