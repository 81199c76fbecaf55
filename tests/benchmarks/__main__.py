"""``make bench``: all parts, or those named in ONLY (comma separated); QUICK=1 for a smoke run.

Results go to docs/benchmarks/results.json, and from there into docs/benchmarks.md with its plots; of a partial run
only its parts are replaced, and each says when it was measured. A quick run prints its tables and leaves the documents
alone.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.benchmarks import (
    cold_start,
    endpoints,
    generator,
    large_bodies,
    models,
    overhead,
    overload,
    processes,
    replicas,
    report,
    sustained,
    throughput,
    unbatched,
)
from tests.benchmarks.autoscaling import comparison, document
from tests.benchmarks.bench import Bench, Servers
from tests.benchmarks.servers import mlflow_serve, mlserver, servery

PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "generator": generator.run,
    "throughput": throughput.run,
    "overhead": overhead.run,
    "unbatched": unbatched.run,
    "overload": overload.run,
    "large_bodies": large_bodies.run,
    "replicas": replicas.run,
    "sustained": sustained.run,
    "endpoints": endpoints.run,
    "processes": processes.run,
    "cold_start": cold_start.run,
}
ALONE = ("endpoints", "processes", "cold_start")
"""Parts that bring servers of their own; the others' are stopped before."""
SIMULATED: dict[str, Callable[[bool], dict[str, Any]]] = {"autoscaling": comparison.run}
"""Parts without any server; they are told whether it is a quick run."""


def main() -> None:
    """Run the parts that are wanted and write down what was found."""
    known = [*SIMULATED, *PARTS]
    wanted = [name for name in os.environ.get("ONLY", "").split(",") if name] or known
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise SystemExit(f"no such part: {', '.join(unknown)}; there are {', '.join(known)}")
    quick = bool(os.environ.get("QUICK"))
    found = {part: run(quick) for part, run in SIMULATED.items() if part in wanted}
    if set(wanted) & set(PARTS):
        found |= _measure(wanted, quick)
    results = {**report.machine(), "parts": found}
    print(f"\n{report.summary(results)}\n{report.tables(results)}")
    if not quick:
        if "autoscaling" in found:
            document.write(found["autoscaling"], Path("docs"))
        report.write(results, Path("docs"))


def _measure(wanted: list[str], quick: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="sb-") as name:
        directory = Path(name)
        bench = Bench(None, directory, quick)
        beside = [part for part in PARTS if part in wanted and part not in ALONE]
        if beside:
            with ExitStack() as stack:
                print("starting the servers ...", flush=True)
                bench.servers = _start(stack, directory)
                for part in beside:
                    found[part] = PARTS[part](bench)
            bench.servers = None
        for part in (part for part in PARTS if part in wanted and part in ALONE):
            found[part] = PARTS[part](bench)
    return found


def _start(stack: ExitStack, directory: Path) -> Servers:
    model_path = directory / "iris"
    ours = stack.enter_context(servery())
    models.register_iris(model_path)
    ours.deploy("iris", "iris")
    theirs = stack.enter_context(mlflow_serve(model_path))
    third = stack.enter_context(mlserver(model_path, directory / "mlserver"))
    return Servers(ours, theirs, third, model_path)


if __name__ == "__main__":
    main()
