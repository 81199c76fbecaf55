"""The workloads: how many requests come when, how long each takes, how slowly replicas start."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tests.benchmarks.autoscaling.simulation import STEP, Workload, rounded

Floats = NDArray[np.float64]

SERVICE_SECONDS = 0.2
WARM_START = (1.0, 3.0)
"""Seconds, least and most: a replica forked from a warm parent or on a machine that has its environment."""
SLOW_START = (30.0, 60.0)
"""An environment that has to be unpacked and imported first."""
LONGEST_SERVICE = 60.0
"""Seconds. The default timeout of an endpoint."""


@dataclass(frozen=True)
class Trace:
    """One kind of demand."""

    name: str
    about: str
    seconds: int
    rate: Callable[[Floats, np.random.Generator], Floats]
    """Requests a second at each of these seconds."""
    service: Callable[[np.random.Generator, int], Floats]
    """So many service times in seconds, ``SERVICE_SECONDS`` on average."""
    startup: tuple[float, float] = WARM_START


def exponential(random: np.random.Generator, count: int) -> Floats:
    """Service times whose deviation is their mean."""
    return random.exponential(SERVICE_SECONDS, count)


def lognormal(random: np.random.Generator, count: int) -> Floats:
    """Half are below 0.065 s, one in a hundred above 2.1 s."""
    sigma = 1.5
    return random.lognormal(np.log(SERVICE_SECONDS) - sigma**2 / 2, sigma, count)


def pareto(random: np.random.Generator, count: int) -> Floats:
    """Tail index 1.8: the variance is that of the longest few."""
    tail = 1.8
    return (1 + random.pareto(tail, count)) * SERVICE_SECONDS * (tail - 1) / tail


def _diurnal(at: Floats, _: np.random.Generator) -> Floats:
    return 400 - 380 * np.cos(2 * np.pi * at / 3600)


def _constant(rate: float) -> Callable[[Floats, np.random.Generator], Floats]:
    return lambda at, _: np.full(at.shape, rate)


def _spike(at: Floats, _: np.random.Generator) -> Floats:
    return np.where((at >= 300) & (at < 420), 1000.0, 20.0)


def _bursts(at: Floats, random: np.random.Generator) -> Floats:
    lengths = np.where(np.arange(400) % 2, random.uniform(15, 60, 400), random.uniform(30, 150, 400))
    return np.where(np.searchsorted(np.cumsum(lengths), at) % 2, 400.0, 20.0)


def _ramp(at: Floats, _: np.random.Generator) -> Floats:
    return 10 + 9990 * np.clip((at - 60) / 60, 0, 1)


TRACES = (
    Trace("steady", "600 requests a second", 1800, _constant(600.0), exponential),
    Trace("small", "12 requests a second", 1800, _constant(12.0), exponential),
    Trace("diurnal", "20 to 780 a second and back, a day in an hour", 3600, _diurnal, exponential),
    Trace(
        "spike",
        "20 a second, 1,000 for two minutes, 20 again",
        900,
        _spike,
        exponential,
    ),
    Trace("ramp", "10 to 10,000 a second within one minute", 240, _ramp, exponential),
    Trace("bursts", "15 to 60 s of 400 a second, 30 to 150 s of 20, by chance", 3600, _bursts, exponential),
    Trace("lognormal", "300 a second, lognormal service times", 1800, _constant(300.0), lognormal),
    Trace("pareto", "300 a second, Pareto service times", 1800, _constant(300.0), pareto),
    Trace(
        "slow starts",
        "as diurnal, and a replica takes 30 to 60 s to start",
        3600,
        _diurnal,
        exponential,
        SLOW_START,
    ),
)


def workload(trace: Trace, seed: int) -> Workload:
    """Draw the requests of one trace: a Poisson process of its rate."""
    random = np.random.default_rng([seed, *trace.name.encode()])
    at = np.arange(0, trace.seconds, STEP)
    rate = trace.rate(at, random)
    arrivals = random.poisson(rate * STEP)
    services = np.minimum(trace.service(random, int(arrivals.sum())), LONGEST_SERVICE)
    # What there is at the beginning is enough for what comes first, for every policy alike.
    first = float(rate[0]) * SERVICE_SECONDS / Workload.slots
    return Workload(
        arrivals=arrivals,
        services=rounded(services, random),
        startups=rounded(random.uniform(*trace.startup, 4096), random),
        initial_replicas=int(np.ceil(first / 0.7)),
    )
