"""What is learned of models whose latency is known: a day of demand, in blocks of ten seconds."""

from collections.abc import Callable
from itertools import pairwise
from math import ceil, cos, pi, sqrt

import numpy as np
import pytest

from servery_scaler.target_concurrency import FLOOR, RAISED, ConcurrencyLearner, limit

Latency = Callable[[float], float]
"""Seconds in a slot at so many requests at a time on one replica."""
SLOTS = 4
INTERVAL = 30.0


def cpu_bound(concurrency: float) -> float:
    """Works on one after the other, as with Python's lock: with others it takes as many times as long."""
    return 0.05 * (1 + concurrency)


def sleeping(concurrency: float) -> float:
    """Waits for something else."""
    return 0.05


def batching(concurrency: float) -> float:
    """Joins requests: one more costs 2 % of the first."""
    return 0.02 * (1 + 0.02 * concurrency)


class Day:
    """Demand that comes and goes, met by as many replicas as the target asks for."""

    def __init__(self, latency: Latency, accepted: int, most: float, noise: float = 0.1) -> None:
        self.learner = ConcurrencyLearner(0.0, SLOTS)
        self.targets: list[float] = []
        self._latency = latency
        self._accepted = accepted
        self._most = most
        self._noise = noise
        self._random = np.random.default_rng(7)

    def live(self, hours: float) -> float:
        running = 1.0
        replicas = 1
        for second in range(0, int(hours * 3600), 5):
            rate = self._most * (0.5 - 0.5 * cos(2 * pi * second / 3600)) + 1
            # Requests that happen to take longer are also more at a time.
            luck = float(self._random.lognormal(0, self._noise))
            for _ in range(20):
                concurrency = running / replicas
                service = luck * self._latency(min(concurrency, self._accepted))
                running += 0.3 * (min(rate * service, replicas * self._accepted) - running)
            self.learner.observe(
                running=running,
                waiting=max(0.0, rate * service - replicas * self._accepted),
                replicas=replicas,
                ended=running / service,
                service_seconds=service,
                slots=SLOTS,
                accepted=self._accepted,
                seconds=5.0,
            )
            self.learner.learn(float(second), INTERVAL, slots=SLOTS, accepted=self._accepted)
            self.targets.append(self.learner.target)
            # Up at once, down one at a time, as the decision does it.
            needed = ceil((running + 0.7 * sqrt(running)) / self.learner.target)
            replicas = max(1, needed if needed > replicas else replicas - (needed < replicas))
        return self.learner.target


def test_a_model_that_works_on_one_after_the_other_ends_at_a_low_target():
    assert Day(cpu_bound, SLOTS, most=100).live(hours=2) <= 2.0


def test_a_model_that_sleeps_keeps_its_slots():
    assert Day(sleeping, SLOTS, most=400).live(hours=4) == SLOTS


@pytest.mark.parametrize("noise", [0.3, 0.6])
def test_times_that_vary_by_chance_do_not_look_like_a_model_that_suffers(noise):
    assert Day(sleeping, SLOTS, most=400, noise=noise).live(hours=4) >= 0.9 * SLOTS


@pytest.mark.parametrize("accepted", [64, 256])
def test_a_model_that_joins_requests_ends_at_a_high_target(accepted):
    target = Day(batching, accepted, most=20_000).live(hours=4)
    assert 30 <= target <= limit(SLOTS, accepted)


def test_the_target_falls_by_half_at_most_and_rises_by_a_quarter():
    for day in (Day(cpu_bound, 64, most=200), Day(batching, 64, most=20_000)):
        day.live(hours=1)
        for before, after in pairwise(day.targets):
            assert before * 0.5 - 1e-9 <= after <= before * RAISED + 1e-9
            assert FLOOR <= after <= limit(SLOTS, 64)


def observe(learner: ConcurrencyLearner, running: float, service: float, *, waiting=0.0, seconds=60) -> None:
    for _ in range(seconds):
        learner.observe(
            running=running,
            waiting=waiting,
            replicas=1,
            ended=max(20.0, running / service),
            service_seconds=service,
            slots=SLOTS,
            accepted=100,
        )


def learned(learner: ConcurrencyLearner, now: float) -> float:
    return learner.learn(now, INTERVAL, slots=SLOTS, accepted=100)


def test_without_evidence_nothing_is_learned():
    learner = ConcurrencyLearner(0.0, SLOTS)
    assert learned(learner, 1000.0) == SLOTS
    observe(learner, 0.5, 0.02)
    assert learned(learner, 2000.0) == SLOTS


def test_nothing_is_raised_while_requests_have_to_wait():
    learner = ConcurrencyLearner(0.0, SLOTS)
    observe(learner, 4.0, 0.02, waiting=2.0)
    assert learned(learner, 100.0) == SLOTS
    observe(learner, 4.0, 0.02)
    assert learned(learner, 200.0) == SLOTS * RAISED


def test_requests_that_take_longer_and_so_are_more_at_a_time_are_no_sign_of_a_model_that_suffers():
    """By Little's law the concurrency follows the time, whatever the model does: the one is not the other's cause."""
    learner = ConcurrencyLearner(0.0, SLOTS)
    for at in range(1, 20):
        for luck in (0.8, 1.25):
            observe(learner, 3.0 * luck, 0.05 * luck)
        learned(learner, at * INTERVAL)
        assert learner.target >= SLOTS


def test_twice_the_concurrency_at_twice_the_time_is_one():
    learner = ConcurrencyLearner(0.0, SLOTS)
    observe(learner, 1.5, 0.05)
    observe(learner, 4.0, 0.13)
    assert learned(learner, 100.0) == SLOTS / 2


def test_not_more_often_than_each_interval():
    learner = ConcurrencyLearner(0.0, SLOTS)
    observe(learner, 4.0, 0.02)
    assert learned(learner, INTERVAL - 1) == SLOTS
    assert learned(learner, INTERVAL) == SLOTS * RAISED


def test_what_a_replica_bears_at_the_beginning_need_not_be_spread_out_first():
    """As in the first second of a new version of a model that joins requests."""
    learner = ConcurrencyLearner(0.0, SLOTS)
    learner.begin(50.0, trusted=False)
    assert learner.target == 50.0


def test_little_load_at_the_beginning_is_no_sign_of_a_model_that_bears_little_unless_it_was_scaled_so():
    new, older = ConcurrencyLearner(0.0, SLOTS), ConcurrencyLearner(0.0, SLOTS)
    new.begin(1.5, trusted=False)
    older.begin(1.5, trusted=True)
    assert (new.target, older.target) == (SLOTS, 1.5)


def test_what_is_kept_does_not_grow():
    learner = ConcurrencyLearner(0.0, SLOTS)
    random = np.random.default_rng(3)
    for at in range(2000):
        observe(learner, float(random.lognormal(1, 3)), float(random.lognormal(-3, 2)), seconds=11)
        learned(learner, at * INTERVAL)
    assert len(learner._steps) < 64
