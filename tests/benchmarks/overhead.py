"""What Servery adds to a prediction, at a rate that does not depend on how fast it answers."""

import subprocess
import sys
from typing import Any

from tests.benchmarks.bench import Bench
from tests.benchmarks.load.client import load, percentile

RATE = 500
PREDICTIONS = 2000
_PREDICT = """
import gc, json, sys, time
import mlflow.pyfunc
import pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1], suppress_warnings=True)
table = pd.DataFrame([json.loads(sys.argv[3])], columns=json.loads(sys.argv[2]))
gc.collect(); gc.freeze()
took = []
for _ in range(int(sys.argv[4])):
    began = time.perf_counter()
    model.predict(table)
    took.append((time.perf_counter() - began) * 1000)
print(json.dumps(took[200:]))
"""


def run(bench: Bench) -> dict[str, Any]:
    """End to end at 500 requests a second, minus the median of ``PyFuncModel.predict`` in a process like the runner."""
    predict = percentile(_predict_times(bench), 50)
    target = bench.servery.target("iris")
    load(target, connections=64, rate=RATE, seconds=2)
    outcome = load(target, connections=64, rate=RATE, seconds=bench.seconds(20))
    overhead = [latency - predict for latency in outcome.latencies_ms]
    bench.say(
        f"overhead at {RATE}/s: p50 {percentile(overhead, 50):.2f} ms, p99 {percentile(overhead, 99):.2f} ms "
        f"on top of a predict of {predict:.2f} ms"
    )
    return {
        "predict_ms": round(predict, 3),
        "end_to_end": outcome.summary(),
        "targets": [
            Bench.target("overhead p50 ms", percentile(overhead, 50), "<=", 1.5),
            Bench.target("overhead p99 ms", percentile(overhead, 99), "<=", 8),
            Bench.target("errors", float(outcome.errors), "<=", 0),
        ],
    }


def _predict_times(bench: Bench) -> list[float]:
    import json

    from tests.benchmarks.servers import COLUMNS, ROW

    arguments = [str(bench.model_path), json.dumps(COLUMNS), json.dumps(ROW), str(PREDICTIONS)]
    printed = subprocess.run(
        [sys.executable, "-c", _PREDICT, *arguments], check=True, capture_output=True, text=True
    ).stdout
    return json.loads(printed.splitlines()[-1])
