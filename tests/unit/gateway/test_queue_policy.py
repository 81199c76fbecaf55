import random

import pytest

from servery_gateway.queue_policy import (
    MAX_RETRY_AFTER,
    MIN_INTERVAL,
    QueuePolicy,
    queue_bound,
)


def policy(slots: int = 4, seconds: float | None = 0.02) -> QueuePolicy:
    made = QueuePolicy(0.0, slots)
    if seconds is not None:
        made.left(0.0, seconds, waiting=0)
    return made


def judged(
    of: QueuePolicy, waiting: int, *, now: float = 0.0, deadline: float = 60.0, max_wait: float = 30.0
):
    return of.judge(now, waiting=waiting, in_slots=of.slots, deadline=deadline, max_wait=max_wait)


@pytest.mark.parametrize(
    ("max_queued", "declared", "ready", "bound"),
    [
        (40, 4, 4, 40),
        (40, 4, 128, 1280),  # Replicas that batch.
        (80, 8, 4, 80),  # One of two replicas is not ready yet.
        (40, 4, 0, 40),  # None is.
        (40, 0, 0, 40),
        (0, 4, 128, 0),
    ],
)
def test_more_may_wait_for_replicas_that_take_more_at_once(max_queued, declared, ready, bound) -> None:
    assert queue_bound(max_queued, declared, ready) == bound


def test_the_wait_is_estimated_from_the_time_requests_spend_in_slots() -> None:
    assert policy().wait(19, in_slots=4) == pytest.approx(0.1)
    assert policy(seconds=None).wait(20, in_slots=4) is None
    assert policy().wait(20, in_slots=0) is None


def test_before_anything_was_measured_only_bounds_hold() -> None:
    assert judged(policy(seconds=None), 10_000) is None


def test_without_overload_a_request_may_wait_as_long_as_it_is_of_use() -> None:
    one = policy()
    assert judged(one, 5000) is None  # 25 s
    assert judged(one, 7000) == ("queue_wait", 36)
    assert judged(one, 3000, deadline=15.0) == ("queue_wait", 16)
    assert judged(one, 40_000, max_wait=1000.0, deadline=100.0) == ("queue_wait", MAX_RETRY_AFTER)


def test_a_full_queue_is_overload_until_fewer_came_for_a_while_than_could_leave() -> None:
    one = policy()
    assert one.full(40, 4) == ("queue_full", 1)
    assert judged(one, 4) is None
    assert judged(one, 5) == ("queue_wait", 1)
    seen = intervals(one, *[8] * 8, left=10)
    assert seen[0]
    assert not seen[-1]
    assert judged(one, 5, now=8 * MIN_INTERVAL) is None


def test_overload_is_over_when_nobody_has_to_wait_any_more() -> None:
    one = policy()
    one.full(40, 4)
    assert judged(one, 5, now=MIN_INTERVAL / 2) is not None
    one.arrived(MIN_INTERVAL)
    assert one.overloaded
    one.arrived(2 * MIN_INTERVAL)
    assert not one.overloaded


def intervals(of: QueuePolicy, *arrivals: int, left: int) -> list[bool]:
    """Return, for each interval with so many arrivals, whether it ended in overload."""
    seen = []
    for number, count in enumerate(arrivals):
        now = number * MIN_INTERVAL
        for _ in range(count - bool(seen)):
            of.arrived(now)
        judged(of, 5, now=now)
        for _ in range(left):
            of.left(now, 0.02, waiting=1)
        of.arrived(
            now + MIN_INTERVAL
        )  # The first of the next one: an interval ends when something happens after it.
        seen.append(of.overloaded)
    return seen


def test_twice_what_can_leave_is_overload_after_two_intervals() -> None:
    assert intervals(policy(), 20, 20, 20, left=10) == [False, True, True]


def test_somewhat_more_than_can_leave_is_overload_after_more_of_them() -> None:
    seen = intervals(policy(), *[14] * 10, left=10)
    assert not seen[2]
    assert seen[-1]


def test_one_interval_in_which_many_come_is_a_burst() -> None:
    assert intervals(policy(), 500, 10, 10, left=10) == [False, False, False]


def test_what_chance_brings_is_no_overload() -> None:
    """A Poisson process at nine tenths of what can leave; it brings more than that in every third interval."""
    draw = random.Random(1)
    for _ in range(20):
        counts = [sum(draw.random() < 0.09 for _ in range(100)) for _ in range(40)]
        assert True not in intervals(policy(), *counts, left=10)


def in_overload() -> QueuePolicy:
    """In the third interval of it."""
    one = policy()
    assert intervals(one, 20, 20, left=10) == [False, True]
    for _ in range(20):
        judged(one, 5, now=2 * MIN_INTERVAL)
        one.arrived(2 * MIN_INTERVAL)
    return one


def test_an_overload_is_over_after_a_pause() -> None:
    one = in_overload()
    one.left(2 * MIN_INTERVAL, 0.02, waiting=0)
    one.arrived(5 * MIN_INTERVAL)
    assert not one.overloaded
    assert judged(one, 5, now=5 * MIN_INTERVAL) is None


def test_a_replica_that_stalls_while_requests_wait_makes_no_pause() -> None:
    one = in_overload()
    one.left(2 * MIN_INTERVAL, 0.02, waiting=5)
    one.arrived(5 * MIN_INTERVAL)
    assert one.overloaded


def test_an_overload_of_one_served_entity_ends_though_refused_requests_do_not_leave() -> None:
    one = policy(slots=1, seconds=0.005)
    one.full(10, 1)
    for number in range(6):
        now = number * MIN_INTERVAL
        judged(one, 5, now=now)
        for _ in range(8):  # Of 10 that can be served; 6 were.
            one.arrived(now)
        for _ in range(6):
            one.left(now, 0.005, waiting=1)
    assert not one.overloaded
