"""What the load generator itself costs: it shares the processors with what it measures."""

from typing import Any

from tests.benchmarks.bench import Bench
from tests.benchmarks.load.client import load
from tests.benchmarks.load.cost import trivial_server

LOADS: dict[str, dict[str, Any]] = {
    "closed loop, 128 connections": {"connections": 128},
    "open loop, 3,000/s": {"connections": 256, "rate": 3000},
}


def run(bench: Bench) -> dict[str, Any]:
    """Both kinds of load on a server that does nothing."""
    with trivial_server() as target:
        outcomes = {name: load(target, seconds=bench.seconds(3), **wanted) for name, wanted in LOADS.items()}
    costs = {name: outcome.cpu_seconds / max(1, outcome.ok) * 1e6 for name, outcome in outcomes.items()}
    bench.say("the generator's own cost: " + ", ".join(f"{name} {us:.0f} µs" for name, us in costs.items()))
    return {
        "loads": {name: outcome.summary() for name, outcome in outcomes.items()},
        "cpu_us": {name: round(us, 1) for name, us in costs.items()},
        "targets": [
            *(Bench.target(f"its CPU a request, µs: {name}", us, "<=", 25) for name, us in costs.items()),
            Bench.target("errors", float(sum(one.errors for one in outcomes.values())), "<=", 0),
        ],
    }
