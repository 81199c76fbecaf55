import pytest

from servery_gateway.queue_policy import (
    INTERVALS_TO_LEAVE,
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


def test_a_full_queue_is_overload_until_it_was_calm_for_a_while() -> None:
    one = policy()
    assert one.full(40, 4) == ("queue_full", 1)
    assert judged(one, 4) is None
    assert judged(one, 5) == ("queue_wait", 1)
    for number in range(1, INTERVALS_TO_LEAVE):
        assert judged(one, 5, now=number * MIN_INTERVAL) is not None
    assert judged(one, 5, now=INTERVALS_TO_LEAVE * MIN_INTERVAL) is None


def test_overload_is_over_when_nobody_has_to_wait_any_more() -> None:
    one = policy()
    one.full(40, 4)
    assert judged(one, 5, now=MIN_INTERVAL / 2) is not None
    one.arrived(MIN_INTERVAL)
    assert one.overloaded
    one.arrived(2 * MIN_INTERVAL)
    assert not one.overloaded


def test_more_than_can_leave_is_no_overload_before_the_queue_is_full() -> None:
    one = policy()
    for number in range(20):
        for _ in range(40):
            one.arrived(number * MIN_INTERVAL)
        assert judged(one, 39, now=number * MIN_INTERVAL) is None
        for _ in range(20):
            one.left(number * MIN_INTERVAL, 0.02, waiting=20)
    assert not one.overloaded


def in_overload() -> QueuePolicy:
    """In the third interval of it."""
    one = policy()
    one.full(40, 4)
    for number in range(3):
        for _ in range(40):
            judged(one, 5, now=number * MIN_INTERVAL)
            one.arrived(number * MIN_INTERVAL)
        for _ in range(20):
            one.left(number * MIN_INTERVAL, 0.02, waiting=4)
    assert one.overloaded
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
    for number in range(INTERVALS_TO_LEAVE + 1):
        now = number * MIN_INTERVAL
        judged(one, 5, now=now)
        for _ in range(16):  # Of 20 that can be served; 12 were.
            one.arrived(now)
        for _ in range(12):
            one.left(now, 0.005, waiting=1)
    assert not one.overloaded
