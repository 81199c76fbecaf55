"""A model that does not batch: what is left is what a request costs beside its prediction."""

from typing import Any

from tests.benchmarks.bench import Bench
from tests.benchmarks.load.client import Outcome, load

CONNECTIONS = 32


def run(bench: Bench) -> dict[str, Any]:
    """One process holds the model on either side."""
    bench.servery.deploy("unbatched", "iris", environment_vars={"SERVERY_BATCHING": "off"})
    targets = [bench.servery.target("unbatched"), bench.mlflow]
    outcomes = {target.name: Outcome() for target in targets}
    for target in targets:
        load(target, connections=CONNECTIONS, seconds=1)
    for _ in range(bench.rounds):
        for target in targets:
            outcomes[target.name].add(load(target, connections=CONNECTIONS, seconds=bench.seconds(3)))
    ratio = outcomes["Servery"].per_second / outcomes["mlflow models serve"].per_second
    bench.say(f"unbatched, {CONNECTIONS} connections: {ratio:.2f} times mlflow models serve")
    return {
        "servers": {name: outcome.summary() for name, outcome in outcomes.items()},
        "targets": [
            Bench.target("times mlflow models serve", ratio, ">=", 2.0),
            Bench.target("errors", float(outcomes["Servery"].errors), "<=", 0),
        ],
    }
