"""The real dispatcher under more load than its replica can take, in simulated time: see ``simulation``."""

import random

import pytest
from tests.unit.gateway.simulation import Batching, OneByOne, Simulation, Tally

CALM = 0.8
FACTORS = [2, 10]


def one_by_one() -> OneByOne:
    """200 requests a second."""
    return OneByOne(slots=4, seconds=0.02)


def one_at_a_time() -> OneByOne:
    return OneByOne(slots=1, seconds=0.005)


def batching() -> Batching:
    """2000 requests a second, in batches of 64."""
    return Batching(slots=128, size=128, seconds=0.032)


REPLICAS = [one_by_one, one_at_a_time, batching]


@pytest.mark.parametrize("replica", REPLICAS)
def test_a_load_that_can_be_served_is_served(replica) -> None:
    simulation = Simulation(replica())
    tally = simulation.offer(CALM * simulation.replica.capacity, 10.0, random=random.Random(1))
    assert not tally.refused


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("replica", REPLICAS)
def test_in_overload_the_replica_stays_busy_and_who_is_let_in_hardly_waits(replica, factor: int) -> None:
    simulation, draw = Simulation(replica()), random.Random(factor)
    capacity = simulation.replica.capacity
    calm = simulation.offer(CALM * capacity, 10.0, random=draw)
    onset = simulation.offer(factor * capacity, 1.0, random=draw)
    answered_before = calm.served + onset.served
    overload = simulation.offer(factor * capacity, 5.0, random=draw)
    # Those that came before and still waited are work done, too.
    assert calm.served + onset.served + overload.served - answered_before >= 0.99 * capacity * 5.0
    assert overload.percentile(0.99) <= 2 * calm.percentile(0.99)
    assert onset.refused
    assert set(overload.refused) == {"queue_wait"}
    assert min(overload.retry_after) >= 1


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("replica", REPLICAS)
def test_two_seconds_after_an_overload_nothing_is_refused_any_more(replica, factor: int) -> None:
    simulation, draw = Simulation(replica()), random.Random(factor)
    capacity = simulation.replica.capacity
    before = simulation.offer(CALM * capacity, 10.0, random=draw)
    simulation.offer(factor * capacity, 5.0, random=draw)
    simulation.offer(CALM * capacity, 2.0, random=draw)
    after = simulation.offer(CALM * capacity, 10.0, random=draw)
    assert not after.refused
    assert after.percentile(0.99) <= 2 * before.percentile(0.99)


def test_a_burst_on_an_idle_endpoint_is_served_to_the_last() -> None:
    simulation = Simulation(one_by_one(), max_queued=500)
    simulation.offer(20, 5.0, random=random.Random(1))
    burst = Tally()
    for _ in range(500):
        simulation.request(burst)
    simulation.loop.run(simulation.loop.time() + 60.0)
    assert (burst.served, burst.refused) == (500, {})


@pytest.mark.parametrize(
    ("replica", "clients"), [(one_by_one, 32), (one_by_one, 44), (one_at_a_time, 40), (batching, 512)]
)
def test_clients_that_each_wait_for_their_answer_are_all_served(replica, clients: int) -> None:
    """Their queue stands, but it does not grow."""
    simulation = Simulation(replica())
    tally = simulation.clients(clients, 5.0)
    assert not tally.refused
    assert tally.served >= 0.9 * simulation.replica.capacity * 5.0


@pytest.mark.parametrize("within", [0.1, 0.3, 1.0, 3.0])
@pytest.mark.parametrize(
    ("replica", "clients"),
    [(one_by_one, 44), (lambda: OneByOne(slots=4, seconds=0.2), 44), (one_at_a_time, 40), (batching, 512)],
)
def test_clients_that_begin_one_after_the_other_are_all_served(replica, clients: int, within: float) -> None:
    """More comes than can leave for a while, until each of them waits for its answer."""
    simulation = Simulation(replica())
    simulation.offer(0.3 * simulation.replica.capacity, 3.0, random=random.Random(1))
    simulation.loop.run(simulation.loop.time() + 3.0)
    tally = simulation.clients(clients, 5.0, within=within)
    assert not tally.refused


def test_clients_that_do_not_heed_a_refusal_slow_nobody_down() -> None:
    simulation = Simulation(one_by_one())
    tally = Tally()

    def again() -> None:
        simulation.loop.call_later(0.01, call)

    def call() -> None:
        if simulation.loop.time() < 10.0:
            simulation.request(tally, then=again)

    for _ in range(100):
        call()
    simulation.loop.run(10.0)
    assert tally.served >= 0.95 * simulation.replica.capacity * 10.0
    assert len(tally.retry_after) + tally.served == tally.offered - len(
        simulation.dispatcher._attempts
    ) - sum(len(pool.queue) for pool in simulation.dispatcher.pools())


def test_what_was_let_in_runs_once_and_in_the_order_it_came() -> None:
    simulation = Simulation(one_by_one())
    tally = simulation.offer(2000, 3.0, random=random.Random(1))
    ran = [int(number) for number in simulation.transport.ran]
    assert ran == sorted(set(ran))
    simulation.loop.run(10.0)
    assert len(simulation.transport.ran) == tally.served == tally.offered - sum(tally.refused.values())


def test_who_could_not_be_answered_in_time_is_told_at_once_and_for_how_long() -> None:
    simulation = Simulation(OneByOne(slots=1, seconds=1.0))
    first, tally = Tally(), Tally()
    simulation.request(first)
    simulation.loop.run(1.0)
    for _ in range(6):
        simulation.request(tally, seconds=4.5)
    # One works, the others begin one after the other: the fifth would be answered after five seconds.
    assert dict(tally.refused) == {"queue_wait": 2}
    assert tally.retry_after == [4, 4]
    simulation.loop.run(10.0)
    assert tally.waits == [1.0, 2.0, 3.0, 4.0]
