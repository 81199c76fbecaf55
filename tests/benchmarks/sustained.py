"""A constant 3,000 requests a second for five minutes: no error, a bounded tail, flat memory."""

import threading
import time
from typing import Any

from tests.benchmarks.bench import Bench
from tests.benchmarks.load.client import Generator

RATE = 3000
MINUTES = 5
GROWTH_MIB = 32.0
"""Growth of all processes together, from the end of the first minute on, that counts as flat."""


def run(bench: Bench) -> dict[str, Any]:
    """Make the load, and look at the memory of each process meanwhile."""
    seconds = bench.seconds(MINUTES * 60.0)
    generator = Generator(bench.servery.target("iris"), connections=256, rate=RATE, seconds=seconds)
    memory: list[dict[str, float]] = []
    over = threading.Event()

    def watch() -> None:
        began = time.monotonic()
        while not over.wait(seconds / 60):
            seen = bench.servery.memory()
            memory.append(
                {"at": round(time.monotonic() - began, 1), **{k: round(v, 1) for k, v in seen.items()}}
            )

    watcher = threading.Thread(target=watch)
    watcher.start()
    outcome = generator.result()
    over.set()
    watcher.join()
    settled = memory[len(memory) // 5 :]
    growth = _total(settled[-1]) - _total(settled[0]) if settled else 0.0
    bench.say(
        f"{RATE}/s for {seconds:.0f} s: {outcome.errors} errors, p99 {outcome.percentile(99):.1f} ms, "
        f"memory {growth:+.0f} MiB"
    )
    return {
        "load": outcome.summary(),
        "memory_mib": memory,
        "targets": [
            Bench.target("answers a second", outcome.per_second, ">=", RATE * 0.99),
            Bench.target("errors", float(outcome.errors), "<=", 0),
            Bench.target("p99 ms", outcome.percentile(99), "<", 100),
            Bench.target("growth of memory after the first minute, MiB", growth, "<=", GROWTH_MIB),
        ],
    }


def _total(seen: dict[str, float]) -> float:
    return sum(value for name, value in seen.items() if name != "at")
