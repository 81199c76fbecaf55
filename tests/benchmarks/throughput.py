"""One row of iris, one replica: requests a second and latency at 1, 32 and 128 connections, side by side."""

from typing import Any

from tests.benchmarks.bench import Bench
from tests.benchmarks.load.client import Outcome, load

CONNECTIONS = (1, 32, 128)
SHARES = [*range(1, 99), 99, 99.5, 99.9]
"""Percentiles that the plot of latencies is drawn from."""


def run(bench: Bench) -> dict[str, Any]:
    """Ask the servers in turn, in short blocks, so that a noisy moment hits them all."""
    targets = [bench.servery.target("iris"), bench.mlflow, *bench.mlserver]
    for target in targets:
        load(target, connections=8, seconds=2)
    found: dict[str, dict[str, Outcome]] = {}
    for connections in CONNECTIONS:
        outcomes = {target.name: Outcome() for target in targets}
        for _ in range(bench.rounds):
            for target in targets:
                outcomes[target.name].add(load(target, connections=connections, seconds=bench.seconds(2.5)))
        found[str(connections)] = outcomes
        bench.say(
            f"{connections:4} connections: "
            + ", ".join(f"{name} {outcome.per_second:.0f}/s" for name, outcome in outcomes.items())
        )
    bench.capacity = found["128"]["Servery"].per_second
    return {
        "servers": {
            connections: {name: outcome.summary() for name, outcome in outcomes.items()}
            for connections, outcomes in found.items()
        },
        "latency_ms_at_32": {
            name: [round(outcome.percentile(share), 3) for share in SHARES]
            for name, outcome in found["32"].items()
        },
        "shares": SHARES,
        "targets": _targets(found),
    }


def _targets(found: dict[str, dict[str, Outcome]]) -> list[dict[str, Any]]:
    def rate(connections: str, name: str) -> float:
        return found[connections][name].per_second

    best_mlserver = max(
        rate(connections, name)
        for connections in found
        for name in found[connections]
        if name.startswith("MLServer")
    )
    mlflow = max(rate(connections, "mlflow models serve") for connections in found)
    servery, at_128 = "Servery", found["128"]["Servery"]
    return [
        Bench.target("128 connections, answers a second", at_128.per_second, ">=", 5000),
        Bench.target("… times mlflow models serve at its best", at_128.per_second / mlflow, ">=", 30),
        Bench.target("… times MLServer at its best", at_128.per_second / best_mlserver, ">=", 6),
        Bench.target("128 connections, p99 ms", at_128.percentile(99), "<", 50),
        Bench.target("32 connections, p99 ms", found["32"][servery].percentile(99), "<", 20),
        Bench.target(
            "1 connection, p50 as a share of mlflow models serve's",
            found["1"][servery].percentile(50) / found["1"]["mlflow models serve"].percentile(50),
            "<=",
            1.0,
        ),
        Bench.target(
            "answers that were not right", float(sum(o[servery].errors for o in found.values())), "<=", 0
        ),
    ]
