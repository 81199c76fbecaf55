"""Scoring routes over several processes of one gateway."""

from typing import Any

from tests.benchmarks import models
from tests.benchmarks.bench import Bench
from tests.benchmarks.load.client import load
from tests.benchmarks.servers import servery


def run(bench: Bench) -> dict[str, Any]:
    """As many processes as there are, one after the other. Two cores are shared with everything else here."""
    rates: dict[int, float] = {}
    errors = 0
    for count in (1, 2):
        with servery(SERVERY_GATEWAY_PROCESSES=str(count)) as stack:
            path = bench.directory / f"iris-{count}"
            models.register_iris(path)
            stack.deploy("iris", "iris")
            target = stack.target("iris")
            load(target, connections=128, seconds=2)
            outcome = load(target, connections=128, seconds=bench.seconds(6))
            rates[count], errors = outcome.per_second, errors + outcome.errors
    bench.say(", ".join(f"{count} gateway processes {rate:.0f}/s" for count, rate in rates.items()))
    return {
        "per_second": {str(count): round(rate, 1) for count, rate in rates.items()},
        "targets": [Bench.target("errors", float(errors), "<=", 0)],
    }
