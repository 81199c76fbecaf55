"""More than can be served, and a neighbour who notices nothing of somebody who sends too much."""

import statistics
from typing import Any

from tests.benchmarks import models
from tests.benchmarks.bench import Bench
from tests.benchmarks.load import rates
from tests.benchmarks.load.client import Generator, Outcome, load, percentile
from tests.benchmarks.load.cost import trivial_server
from tests.benchmarks.servers import WAITING_BODY

CAPACITY_SECONDS = 0.02
SLOTS = 4
QUIET_SHARE = 0.8
NEIGHBOUR_RATE = 100
NOISY_QUOTA = 200
SETTLED_AFTER = 1.0
"""Seconds from the onset of an overload on in which the queue finds out how fast it moves."""


def run(bench: Bench) -> dict[str, Any]:
    """The capacity is the model's: four predictions of 20 ms at a time."""
    models.register_waiting(bench.directory, CAPACITY_SECONDS, "slow")
    bench.servery.deploy("slow", "slow", environment_vars={"SERVERY_BATCHING": "off"})
    target = bench.servery.target("slow", WAITING_BODY)
    load(target, connections=SLOTS * 2, seconds=2)  # It is found out that the model waits.
    capacity = load(target, connections=SLOTS * 2, seconds=bench.seconds(5)).per_second
    normal = load(
        target, connections=64, rate=QUIET_SHARE * capacity, arrivals="poisson", seconds=bench.seconds(8)
    )
    found: dict[str, Any] = {"capacity": round(capacity, 1), "normal": normal.summary()}
    targets: list[dict[str, Any]] = []
    for factor, share in ((2, 0.9), (10, 0.8)):
        outcome = load(target, connections=512, rate=factor * capacity, seconds=bench.seconds(10))
        goodput = outcome.per_second / capacity
        slower = percentile(rates.since(outcome, SETTLED_AFTER), 99) / normal.percentile(99)
        rejected = percentile(outcome.rejections_ms, 99)
        found[f"{factor}x"] = {
            **outcome.summary(),
            "goodput": round(goodput, 3),
            "rejections_p99_ms": round(rejected, 2),
            "goodput_by_second": _by_second(outcome, capacity),
        }
        bench.say(
            f"{factor} times the capacity: goodput {goodput:.0%}, rejected within {rejected:.1f} ms (p99)"
        )
        targets += [
            Bench.target(f"goodput at {factor}x", goodput, ">=", share),
            Bench.target(f"p99 of rejections at {factor}x, ms", rejected, "<=", 20),
            Bench.target(
                f"p99 of accepted at {factor}x after its first second, as a multiple of normal",
                slower,
                "<=",
                2,
            ),
            Bench.target(
                f"p99 of accepted at {factor}x from the start, as a multiple of normal",
                outcome.percentile(99) / normal.percentile(99),
                "<=",
                2,
            ),
            Bench.target(
                f"answers without Retry-After at {factor}x", float(outcome.without_retry_after), "<=", 0
            ),
        ]
        after = load(
            target, connections=64, rate=QUIET_SHARE * capacity, arrivals="poisson", seconds=bench.seconds(8)
        )
        # The next load begins a moment after the last one: its processes have to start.
        gap = after.began - (outcome.began + outcome.seconds)
        normal_after = gap + rates.normal_from(after, normal.percentile(99))
        found[f"after_{factor}x"] = {**after.summary(), "normal_after_seconds": round(normal_after, 2)}
        targets += [
            Bench.target(f"seconds until normal after {factor}x", normal_after, "<=", 5),
            Bench.target(f"errors in the 8 s after {factor}x", float(after.errors), "<=", 0),
        ]
    neighbour = _noisy(bench)
    found["noisy_neighbour"] = neighbour["found"]
    return {**found, "targets": targets + neighbour["targets"]}


def _noisy(bench: Bench) -> dict[str, Any]:
    """One workspace at ten times its quota beside one that sends a little.

    The same noise is also sent to a server that does nothing: what it costs the neighbour then is the machine's.
    """
    other = bench.servery.other_workspace("neighbour", "iris")
    noisy = bench.servery.target("iris")
    _set_quota(bench, NOISY_QUOTA)
    try:
        alone = load(other, connections=32, rate=NEIGHBOUR_RATE, seconds=bench.seconds(10))
        loud = Generator(noisy, connections=128, rate=10 * NOISY_QUOTA, seconds=bench.seconds(10) + 2)
        beside = load(other, connections=32, rate=NEIGHBOUR_RATE, seconds=bench.seconds(10))
        noise = loud.result()
        with trivial_server() as nothing:
            elsewhere = Generator(
                nothing, connections=128, rate=10 * NOISY_QUOTA, seconds=bench.seconds(10) + 2
            )
            beside_nothing = load(other, connections=32, rate=NEIGHBOUR_RATE, seconds=bench.seconds(10))
            elsewhere.result()
    finally:
        _set_quota(bench, 100_000)
    slower = beside.percentile(99) / alone.percentile(99)
    bench.say(f"noisy neighbour: {beside.errors} rejections beside it, p99 {slower:.2f} times alone")
    return {
        "found": {
            "alone": alone.summary(),
            "beside": beside.summary(),
            "beside_nothing": beside_nothing.summary(),
            "noisy": noise.summary(),
            "noisy_admitted_per_second": round(noise.per_second, 1),
        },
        "targets": [
            Bench.target("rejections of the neighbour", float(beside.errors), "<=", 0),
            Bench.target("p99 of the neighbour, as a multiple of alone", slower, "<=", 1.2),
            Bench.target("admitted of the noisy one / quota", noise.per_second / NOISY_QUOTA, "<=", 1.05),
        ],
    }


def _set_quota(bench: Bench, qps: int) -> None:
    bench.servery.command("quota", "set", f"qps={qps}")


def _by_second(outcome: Outcome, capacity: float) -> list[float]:
    seconds = int(outcome.seconds)
    counts = [0] * max(1, seconds)
    for at in outcome.done_at:
        if at < seconds:
            counts[int(at)] += 1
    return [round(count / capacity, 3) for count in counts] or [statistics.fmean([0.0])]
