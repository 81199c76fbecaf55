"""What is remembered of one served entity between two decisions."""

import pytest

from servery_common.contracts.routes import ReplicaRoute, ServedEntityRoute
from servery_scaler.autoscaler import ScalingPolicy
from servery_scaler.collector import Demand
from servery_scaler.entity_watch import FIRST_STARTUP, STARTUP_MEMORY, EntityWatch

POLICY = ScalingPolicy(stable_window=10.0)


def entity(desired: int, ready: int | None = None) -> ServedEntityRoute:
    count = desired if ready is None else ready
    return ServedEntityRoute(
        served_entity_id="e1",
        name="iris-1",
        traffic_percentage=100,
        min_replicas=1,
        max_replicas=20,
        desired_replicas=desired,
        replicas=tuple(ReplicaRoute(replica_id=f"r{n}", slots=4) for n in range(count)),
    )


def demand(running: float, waiting: float = 0.0, ended: float = 0.0, service: float = 0.0) -> Demand:
    return Demand(running, waiting, ended, service, resumed_at=0.0)


def numbers(watch: EntityWatch, now: float, seen: ServedEntityRoute) -> dict[str, float]:
    return watch.decide(now, seen, None, keep=False).seen


def test_a_gap_in_the_data_begins_the_window_anew():
    watch = EntityWatch(0.0, POLICY, entity(5))
    for now in range(20):
        watch.see(now, entity(5), demand(1.0))
    assert watch.decide(19.0, entity(5), None).desired_replicas == 4
    watch.see(20.0, entity(4), None)
    for now in range(21, 30):
        watch.see(now, entity(4), demand(1.0))
    held = watch.decide(29.0, entity(4), None)
    assert (held.desired_replicas, held.seen["watched_seconds"]) == (4, 9.0)
    watch.see(30.0, entity(4), demand(1.0))
    assert watch.decide(30.0, entity(4), None).desired_replicas == 3


def test_a_second_is_taken_in_once_however_often_it_is_looked_at():
    watch = EntityWatch(0.0, POLICY, entity(1))
    watch.see(0.0, entity(1), demand(2.0))
    for tenth in range(1, 10):
        watch.see(tenth / 10, entity(1), demand(8.0))
    assert numbers(watch, 0.9, entity(1))["load"] == 2.0


def test_a_late_tick_does_not_make_a_hole_in_the_load():
    watch = EntityWatch(0.0, POLICY, entity(2))
    for now in (0.0, 1.0, 5.0):
        watch.see(now, entity(2), demand(6.0))
    assert numbers(watch, 5.0, entity(2))["load"] == 6.0


def test_the_time_replicas_take_to_start_is_measured():
    watch = EntityWatch(0.0, POLICY, entity(1))
    watch.see(0.0, entity(1), demand(1.0))
    watch.see(10.0, entity(3, ready=1), demand(1.0))
    watch.see(30.0, entity(3, ready=1), demand(1.0))
    watch.see(52.0, entity(3), demand(1.0))
    learned = FIRST_STARTUP + STARTUP_MEMORY * (42.0 - FIRST_STARTUP)
    assert numbers(watch, 52.0, entity(3))["startup_seconds"] == pytest.approx(learned)
    # Replicas that go and come without having been asked for say nothing.
    watch.see(60.0, entity(3), demand(1.0))
    assert numbers(watch, 60.0, entity(3))["startup_seconds"] == pytest.approx(learned)


def test_while_requests_wait_the_load_is_what_arrives():
    watch = EntityWatch(0.0, POLICY, entity(1))
    for now in range(5):
        watch.see(now, entity(1), demand(4.0, ended=20.0, service=0.2))
    # 480 wait after a second in which 20 ended: 500 came, and 0.2 s each is room for 100.
    watch.see(5.0, entity(1), demand(4.0, waiting=480.0, ended=20.0, service=0.2))
    assert numbers(watch, 5.0, entity(1))["load"] == pytest.approx((4 * 4 + 100) / 5)
