"""Several gateways that keep to one quota, in simulated time: the loads are exact, messages take two milliseconds."""

import random
from collections.abc import Callable, Sequence

import pytest

from servery_gateway.shared_quota import (
    DEBT_SECONDS,
    IDLE,
    ROUND,
    SILENCE,
    Report,
    SharedQuota,
    burst_of,
    share_of,
)

STEP, LATENCY = 0.001, 0.002
SECONDS = 10.0
QPS = 200

Load = Callable[[float], Sequence[float]]
"""Requests a second that each gateway is offered at a time."""


class Gateways:
    """As many as there are loads; ``dies`` is one of them and when it does."""

    def __init__(self, load: Load, qps: int = QPS, dies: tuple[int, float] | None = None) -> None:
        self.qps = qps
        self.admitted = [0] * len(load(0))
        self.rejected = 0
        self._load = load
        self._dies = dies
        self._quotas: dict[int, SharedQuota] = {}

    def run(self, seconds: float = SECONDS) -> "Gateways":
        draw = random.Random(7)
        rounds = [draw.random() * ROUND for _ in self.admitted]
        offered = [0.0] * len(self.admitted)
        letters: list[tuple[float, int, Report]] = []
        for now in (step * STEP for step in range(int(seconds / STEP))):
            arrived = [letter for letter in letters if letter[0] <= now]
            letters = [letter for letter in letters if letter[0] > now]
            for gateway, rate in enumerate(self._load(now)):
                if self._dies is not None and gateway == self._dies[0] and now >= self._dies[1]:
                    continue
                for _, sender, report in arrived:
                    if sender != gateway:
                        self._quota(gateway, now).hear(str(sender), report, now)
                offered[gateway] += rate * STEP
                while offered[gateway] >= 1:
                    offered[gateway] -= 1
                    self._ask(gateway, now)
                if now >= rounds[gateway]:
                    rounds[gateway] += ROUND * draw.uniform(0.9, 1.1)
                    report = self._quota(gateway, now).settle(now, alone=False)
                    if report is not None:
                        letters.append((now + LATENCY, gateway, report))
        return self

    @property
    def of_quota(self) -> float:
        """All that was admitted, as a part of what the quota allows in the time."""
        return sum(self.admitted) / (self.qps * SECONDS)

    def _ask(self, gateway: int, now: float) -> None:
        if self._quota(gateway, now).admit(now):
            self.admitted[gateway] += 1
        else:
            self.rejected += 1

    def _quota(self, gateway: int, now: float) -> SharedQuota:
        return self._quotas.setdefault(gateway, SharedQuota(self.qps, now))


def evenly(gateways: int, rate: float) -> Load:
    return lambda now: [rate / gateways] * gateways


def unevenly(gateways: int, rate: float) -> Load:
    """Nine in ten requests come to the first."""
    return lambda now: [rate * 0.9, *[rate * 0.1 / (gateways - 1)] * (gateways - 1)]


@pytest.mark.parametrize("times", [2, 10])
@pytest.mark.parametrize("spread", [evenly, unevenly])
@pytest.mark.parametrize("gateways", [2, 4])
@pytest.mark.parametrize("qps", [20, QPS, 1000])
def test_overload_gets_the_quota_however_many_gateways_it_comes_to(
    qps: int, gateways: int, spread: Callable[[int, float], Load], times: int
) -> None:
    ran = Gateways(spread(gateways, qps * times), qps).run()
    # What may come at once at the beginning is part of the first ten seconds.
    assert 0.95 <= ran.of_quota - burst_of(qps) / (qps * SECONDS) <= 1.02
    assert ran.of_quota <= 1.05 or qps == 20


@pytest.mark.parametrize("times", [2, 10])
def test_sixteen_gateways_share_a_quota_of_a_request_or_so_a_second_each(times: int) -> None:
    ran = Gateways(evenly(16, 20 * times), 20).run()
    assert 0.9 <= ran.of_quota <= 1.1
    assert min(ran.admitted) >= 0.5 * max(ran.admitted), "each lets in its part"


@pytest.mark.parametrize("times", [2, 10])
def test_a_gateway_that_is_asked_for_little_lets_little_in(times: int) -> None:
    first, second = Gateways(unevenly(2, QPS * times)).run().admitted
    assert 0.07 <= second / (first + second) <= 0.15


@pytest.mark.parametrize("times", [2, 10])
def test_load_that_moves_to_another_gateway_each_second_still_gets_the_quota(times: int) -> None:
    def load(now: float) -> list[float]:
        return [QPS * times, 0] if int(now) % 2 else [0, QPS * times]

    assert 0.95 <= Gateways(load).run().of_quota <= 1.05


@pytest.mark.parametrize("times", [2, 10])
def test_the_part_of_a_gateway_that_died_goes_to_the_other(times: int) -> None:
    def load(now: float) -> list[float]:
        return [QPS * times * 0.9, QPS * times * (0.1 if now < 4.5 else 1)]

    ran = Gateways(load, dies=(0, 4.5)).run()
    assert 0.95 <= ran.of_quota <= 1.05
    assert ran.admitted[1] > 5 * QPS


@pytest.mark.parametrize("times", [2, 10])
def test_a_gateway_that_comes_later_gets_its_part_and_no_more(times: int) -> None:
    ran = Gateways(lambda now: [QPS * times, QPS * times if now > 4 else 0]).run()
    assert 0.95 <= ran.of_quota <= 1.05
    assert 2.5 * QPS <= ran.admitted[1] <= 3.5 * QPS


@pytest.mark.parametrize(
    "load",
    [
        evenly(1, 0.9 * QPS),
        evenly(2, 0.9 * QPS),
        evenly(4, 0.9 * QPS),
        unevenly(2, 0.9 * QPS),
        unevenly(4, 0.9 * QPS),
        lambda now: [0.9 * QPS, 0] if now < 4 else [0.45 * QPS, 0.45 * QPS],
        lambda now: [0.9 * QPS, 0] if int(now) % 2 else [0, 0.9 * QPS],
    ],
    ids=["one", "two", "four", "two unevenly", "four unevenly", "a second takes half", "moving"],
)
def test_nothing_is_refused_below_the_quota(load: Load) -> None:
    ran = Gateways(load).run()
    assert ran.rejected == 0
    assert ran.of_quota > 0.89


def test_a_gateway_alone_goes_on_with_the_part_it_had() -> None:
    quota = SharedQuota(QPS, 0)
    quota.admit(0)
    quota.hear("other", Report(demand=100, admitted=0, level=0), 0.05)
    now = 0.1
    quota.settle(now, alone=False)
    admitted = 0
    while now < 10:
        now += STEP
        admitted += quota.admit(now)
        if int(now / ROUND) != int((now - STEP) / ROUND):
            assert quota.settle(now, alone=True) is None
    share = share_of(10, [100])
    assert admitted == pytest.approx(share * QPS * 10, rel=0.1)


def test_a_gateway_that_falls_silent_counts_no_longer() -> None:
    quota = SharedQuota(QPS, 0)
    quota.admit(0)
    quota.hear("other", Report(demand=1e6, admitted=0, level=0), 0)
    quota.settle(0.1, alone=False)
    assert sum(quota.admit(0.2) for _ in range(QPS)) < 0.25 * QPS / 4
    for at in range(2, 40):
        quota.settle(at * ROUND, alone=False)
    assert sum(quota.admit(4) for _ in range(QPS)) == burst_of(QPS)


def test_what_another_refuses_for_is_reported_until_nothing_came_for_a_while() -> None:
    quota = SharedQuota(QPS, 0)
    quota.admit(0)
    first = quota.settle(ROUND, alone=False)
    assert first is not None
    assert (first.admitted, first.demand) == (1, pytest.approx(1 / ROUND))
    assert not quota.forgettable(ROUND)
    assert quota.settle(IDLE + 2 * ROUND, alone=False) is None
    assert quota.forgettable(IDLE + 2 * ROUND)


def owing(qps: int) -> SharedQuota:
    """A quota of which others let in more than there was, and then fell silent."""
    quota = SharedQuota(qps, 0)
    quota.admit(0)
    quota.hear("other", Report(demand=100, admitted=1000, level=-1000), 0)
    for at in range(1, int(IDLE / ROUND) + 2):
        quota.settle(at * ROUND, alone=False)
    return quota


@pytest.mark.parametrize("qps", [1, 2, QPS])
def test_a_debt_is_not_forgotten_and_is_paid_within_a_bounded_time(qps: int) -> None:
    quota = owing(qps)
    now = (int(IDLE / ROUND) + 1) * ROUND
    assert not quota.forgettable(now)
    paid = SILENCE + DEBT_SECONDS + burst_of(qps) / qps + 2 * ROUND
    while now < paid:
        now += ROUND
        quota.settle(now, alone=False)
    assert quota.forgettable(now)


def test_who_knows_of_a_debt_does_not_believe_one_that_has_just_started() -> None:
    quota = owing(1)
    now = IDLE + ROUND
    quota.hear("fresh", Report(demand=10, admitted=0, level=burst_of(1)), now)
    assert not quota.admit(now)


def test_what_was_given_back_was_not_let_in() -> None:
    quota = SharedQuota(qps=10, now=0)
    for _ in range(100):
        assert quota.admit(0)
        quota.give_back()
    report = quota.settle(ROUND, alone=False)
    assert report is not None
    assert report.admitted == 0


@pytest.mark.parametrize(("qps", "seconds"), [(1, 1), (200, 1), (3000, 1)])
def test_retry_after_is_when_there_is_room_again(qps: int, seconds: int) -> None:
    quota = SharedQuota(qps, 0)
    while quota.admit(0):
        pass
    assert quota.retry_after(0) == seconds
    assert quota.admit(seconds)


def test_a_quotas_share_is_by_demand_within_bounds() -> None:
    assert share_of(30, []) == 1
    assert share_of(30, [10]) == 0.75
    assert share_of(0, [10, 10]) == pytest.approx(1 / 3), "what is about to come is not known"
    assert share_of(1, [1000]) == 0.125, "a demand that grows finds something"
