"""Throughput with 1, 2 and 4 replicas of a model that waits 20 ms: cost grows as the work grows."""

from typing import Any

from tests.benchmarks.bench import Bench
from tests.benchmarks.load.client import load
from tests.benchmarks.servers import WAITING_BODY

SECONDS = 0.02
SLOTS = 4
COUNTS = (1, 2, 4)


def run(bench: Bench) -> dict[str, Any]:
    """Each request has a prediction of its own; a replica makes four at a time."""
    from tests.benchmarks import models

    models.register_waiting(bench.directory, SECONDS, "waiting")
    rates: dict[int, float] = {}
    errors = 0
    for count in COUNTS:
        name, concurrency = f"waiting-{count}", SLOTS * count
        bench.servery.deploy(
            name,
            "waiting",
            workload_size=None,
            min_provisioned_concurrency=concurrency,
            max_provisioned_concurrency=concurrency,
            environment_vars={"SERVERY_BATCHING": "off"},
        )
        load(bench.servery.target(name, WAITING_BODY), connections=concurrency, seconds=1)
        outcome = load(
            bench.servery.target(name, WAITING_BODY),
            connections=concurrency,
            seconds=bench.seconds(4),
        )
        bench.servery.client.delete(name)
        rates[count] = outcome.per_second
        errors += outcome.errors
    ideal = SLOTS / SECONDS
    bench.say(", ".join(f"{count} replicas {rate:.0f}/s" for count, rate in rates.items()))
    return {
        "per_second": {str(count): round(rate, 1) for count, rate in rates.items()},
        "ideal_per_replica": ideal,
        "targets": [
            Bench.target("4 replicas as a multiple of 1", rates[4] / rates[1], ">=", 3.4),
            Bench.target("share of the ideal at 1 replica", rates[1] / ideal, ">=", 0.8),
            Bench.target("errors", float(errors), "<=", 0),
        ],
    }
