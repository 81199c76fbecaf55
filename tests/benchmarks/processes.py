"""Scoring routes over several processes of one gateway."""

from typing import Any

from tests.benchmarks import models
from tests.benchmarks.bench import Bench
from tests.benchmarks.load.client import load
from tests.benchmarks.load.rates import steady_rate
from tests.benchmarks.servers import servery

QUOTA = 500
BURST_SECONDS = 2.0


def run(bench: Bench) -> dict[str, Any]:
    """As many processes as there are, one after the other. Two cores are shared with everything else here."""
    rates: dict[int, float] = {}
    admitted: dict[int, float] = {}
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
            stack.command("quota", "set", f"qps={QUOTA}")
            limited = load(target, connections=128, rate=3 * QUOTA, seconds=bench.seconds(6))
            # A bucket that was full lets through what was saved up; what counts is what comes after that.
            settled = min(BURST_SECONDS, limited.seconds / 2)
            admitted[count] = steady_rate(limited.done_at, settled, limited.seconds) / QUOTA
    bench.say(", ".join(f"{count} gateway processes {rate:.0f}/s" for count, rate in rates.items()))
    return {
        "per_second": {str(count): round(rate, 1) for count, rate in rates.items()},
        "admitted_of_quota": {str(count): round(share, 3) for count, share in admitted.items()},
        "targets": [
            *(
                Bench.target(
                    f"admitted with {count} processes, away from the quota", abs(share - 1), "<=", 0.05
                )
                for count, share in admitted.items()
            ),
            Bench.target("errors", float(errors), "<=", 0),
        ],
    }
