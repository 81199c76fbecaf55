"""The simulator of the benchmark is held against what queueing theory says of it."""

from math import factorial

import numpy as np
import pytest
from tests.benchmarks.autoscaling.ours import Servery
from tests.benchmarks.autoscaling.peers import Knative, RayConfig, RayServe
from tests.benchmarks.autoscaling.simulation import STEP, Result, Second, Workload, rounded, simulate
from tests.benchmarks.autoscaling.traces import TRACES, workload

SERVICE = 1.0


def queue(servers: int, load: float, seconds: int = 20_000, seed: int = 5) -> Workload:
    """M/M/c: Poisson arrivals, exponential service times, so many slots of one each."""
    random = np.random.default_rng(seed)
    arrivals = random.poisson(load / SERVICE * STEP, round(seconds / STEP))
    return Workload(
        arrivals=arrivals,
        services=rounded(random.exponential(SERVICE, int(arrivals.sum())), random),
        startups=np.array([1]),
        slots=1,
        initial_replicas=servers,
    )


def erlang_c(servers: int, load: float) -> float:
    """Mean wait in seconds (Erlang, 1917)."""
    full = load**servers / factorial(servers) * servers / (servers - load)
    waits = full / (sum(load**n / factorial(n) for n in range(servers)) + full)
    return waits * SERVICE / (servers - load)


def fixed(count: int):
    return lambda second: count


@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (4, 3.0), (20, 18.0)])
def test_the_mean_wait_is_that_of_erlangs_formula(servers, load):
    result = simulate(queue(servers, load), fixed(servers))
    assert result.waited_seconds / result.requests == pytest.approx(erlang_c(servers, load), rel=0.1)


def test_littles_law_holds():
    result = simulate(queue(4, 3.0), fixed(4))
    rate = result.requests / (len(result.seconds))
    in_system = np.mean([second.running + second.waiting for second in result.seconds])
    time_in_system = (result.waited_seconds + result.in_service_seconds) / result.requests
    assert in_system == pytest.approx(rate * time_in_system, rel=0.01)


def conserved(result: Result) -> bool:
    return result.requests == result.completed + result.left_running + result.left_waiting


def jumpy(second: Second) -> int:
    """A policy that starts and drains all the time."""
    return 1 + round(second.now) * 7 % 23


@pytest.mark.parametrize("seed", range(3))
def test_no_request_is_lost_or_served_twice_however_replicas_come_and_go(seed):
    trace = next(trace for trace in TRACES if trace.name == "lognormal")
    requests = workload(trace, seed)
    result = simulate(requests, jumpy, seed)
    assert conserved(result)
    assert result.left_running >= 0
    # All the work that was begun was done, in slots that were paid for.
    assert result.in_service_seconds <= result.replica_seconds * requests.slots


@pytest.mark.parametrize("name", ["spike", "small"])
def test_every_policy_serves_the_same_requests(name):
    trace = next(trace for trace in TRACES if trace.name == name)
    requests = workload(trace, 3)
    policies = (Servery(requests.slots, 100), Knative(requests.slots), RayServe(RayConfig()))
    results = [simulate(requests, policy) for policy in policies]
    assert all(conserved(result) for result in results)
    assert len({result.requests for result in results}) == 1


def test_a_replica_is_paid_for_from_when_it_is_asked_for_until_its_last_request_is_done():
    steps = round(10 / STEP)
    arrivals = np.zeros(steps, dtype=int)
    arrivals[0] = 1
    requests = Workload(
        arrivals=arrivals,
        services=np.array([round(5 / STEP)]),
        startups=np.array([round(2 / STEP)]),
        slots=1,
        min_replicas=0,
    )
    # Taken away after a second, with a request that has four more to go: five seconds in all.
    result = simulate(requests, fixed(0))
    assert result.replica_seconds == pytest.approx(5, abs=2 * STEP)
    assert (result.completed, result.violations) == (1, 0)
    # Another one beside it after a second: ten and nine, two of them while it started.
    result = simulate(requests, fixed(2))
    assert result.replica_seconds == pytest.approx(19, abs=2 * STEP)
    assert [second.ready for second in result.seconds[:4]] == [1, 1, 1, 2]


def test_who_waited_longer_than_the_bound_is_counted_exactly():
    arrivals = np.zeros(round(20 / STEP), dtype=int)
    arrivals[0] = 4
    requests = Workload(
        arrivals=arrivals,
        services=np.full(4, round(0.4 / STEP)),
        startups=np.array([1]),
        slots=1,
        bound=0.5,
    )
    # They wait 0, 0.4, 0.8 and 1.2 s.
    result = simulate(requests, fixed(1))
    assert result.violations == 2
    assert result.waited_seconds == pytest.approx(2.4)


def second(now: float, load: float, ready: int, desired: int | None = None) -> Second:
    return Second(now, load, 0.0, 0, 0.2, ready, ready if desired is None else desired, 2.0)


def test_knative_panics_at_twice_what_is_ready_and_then_goes_down_no_more():
    policy = Knative(4)
    for at in range(60):
        policy(second(at, 2.8, 1))
    # The mean of six seconds reaches twice 2.8 with the second one of 30.
    assert policy(second(60, 30.0, 1)) == 1
    panicking = policy(second(61, 30.0, 1))
    assert panicking == 5
    assert policy(second(63, 0.0, 5)) == policy(second(62, 0.0, 5)) == 5


def test_knative_at_rest_aims_at_seven_tenths_of_its_slots():
    policy = Knative(4)
    counts = [policy(second(at, 28.0, 10)) for at in range(120)]
    assert counts[-1] == 10


def test_ray_serve_goes_up_after_thirty_seconds_and_down_after_ten_minutes():
    policy = RayServe(RayConfig())
    up = [policy(second(at, 20.0, 2)) for at in range(32)]
    assert (up[29], up[30]) == (2, 10)
    down = [policy(second(at, 2.0, 10)) for at in range(700)]
    assert next(at for at, count in enumerate(down) if count < 10) >= 600
