"""Bodies of 16 MB: one at a time beside ``mlflow models serve``, and 32 at once beside small requests.

The same 32 are also sent to ``mlflow models serve`` while the small ones still come to Servery: what they cost the
small ones then is the machine's, and no server could do without.
"""

import json
from dataclasses import replace
from typing import Any

from tests.benchmarks.bench import Bench
from tests.benchmarks.load.client import Generator, Outcome, load, percentile
from tests.benchmarks.servers import mlflow_serve
from tests.end_to_end.stack import SERVICES

LENGTH = 16_000_000
SMALL_RATE = 100


def run(bench: Bench) -> dict[str, Any]:
    """The model answers the length of a text: nearly all of the time goes into the body."""
    from tests.benchmarks import models

    path = bench.directory / "length"
    models.register_length(bench.directory, path, "length")
    bench.servery.deploy("length", "length")
    text = "x" * (LENGTH - 60)
    body = json.dumps({"dataframe_split": {"columns": ["text"], "data": [[text]]}})
    expected = json.dumps({"predictions": [len(text)]})
    ours = bench.servery.target("length", body, expected)
    small = bench.servery.target("iris")
    with mlflow_serve(path) as server:
        theirs = replace(server, body=body, expected=expected)
        alone = _alternate(bench, ours, theirs)
        beside_theirs, _, _ = _together(bench, small, theirs)
    ratio = percentile(alone["Servery"].latencies_ms, 50) / percentile(
        alone["mlflow models serve"].latencies_ms, 50
    )
    quiet = load(small, connections=32, rate=SMALL_RATE, seconds=bench.seconds(10))
    beside, large, peak = _together(bench, small, ours)
    disconnects = sum(
        "nats_connection_lost" in line for name in SERVICES for line in bench.servery.stack.logs(name)
    )
    bench.say(f"16 MB: {ratio:.2f} times mlflow's time; gateway at most {peak:.0f} MiB")
    return {
        "alone": {name: outcome.summary() for name, outcome in alone.items()},
        "small_alone": quiet.summary(),
        "small_beside_32_large": beside.summary(),
        "small_beside_32_large_to_mlflow": beside_theirs.summary(),
        "large_32_at_once": large.summary(),
        "gateway_peak_mib": round(peak),
        "targets": [
            Bench.target("one at a time, as a multiple of mlflow models serve's p50", ratio, "<=", 1.3),
            Bench.target(
                "p99 of small requests beside 32 large ones, as a multiple of alone",
                beside.percentile(99) / quiet.percentile(99),
                "<=",
                2.0,
            ),
            Bench.target("errors", float(large.errors + beside.errors), "<=", 0),
            Bench.target("NATS disconnects", float(disconnects), "<=", 0),
        ],
    }


def _alternate(bench: Bench, *targets: Any) -> dict[str, Outcome]:
    outcomes = {target.name: Outcome() for target in targets}
    for _ in range(bench.rounds):
        for target in targets:
            outcomes[target.name].add(load(target, connections=1, seconds=bench.seconds(3)))
    return outcomes


def _together(bench: Bench, small: Any, large: Any) -> tuple[Outcome, Outcome, float]:
    seconds = bench.seconds(10)
    many = Generator(large, connections=32, seconds=seconds)
    few = Generator(small, connections=32, rate=SMALL_RATE, seconds=seconds)
    peak = 0.0
    while not many.over(0.1):
        peak = max(peak, bench.servery.memory().get("gateway", 0.0))
    return few.result(), many.result(), peak
