"""Write what was measured into docs/benchmarks.md: every target with its figure, met or not."""

import datetime
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from tests.benchmarks import plots
from tests.benchmarks.servers import MLSERVER

TITLES = {
    "throughput": "One row of iris, one replica (`Small`), side by side",
    "overhead": "Overhead on top of `PyFuncModel.predict`",
    "unbatched": "A model that does not batch",
    "overload": "Overload, and a noisy neighbour",
    "large_bodies": "Bodies of 16 MB",
    "replicas": "Replicas of a model that waits 20 ms",
    "sustained": "3,000 requests a second for five minutes",
    "endpoints": "Many endpoints",
    "processes": "Several gateway processes",
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
    names = ("mlflow", "scikit-learn", "numpy", "pandas", "nats-py", "uvicorn", "uvloop")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
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
            f"## {title}\n\n{_targets(found['targets'])}\n{_details(part, found)}".rstrip() + "\n"
        )
    return "\n".join(sections)


def write(results: dict[str, Any], docs: Path) -> None:
    """Write the results, the plots and the page."""
    directory = docs / "benchmarks"
    directory.mkdir(exist_ok=True)
    file = directory / "results.json"
    if file.exists():
        results = {**results, "parts": {**json.loads(file.read_text())["parts"], **results["parts"]}}
    file.write_text(json.dumps(results, indent=1) + "\n")
    drawn = plots.draw(results, directory)
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    about = results["machine"]
    machine_line = (
        f"{results['date']}: {about['cores']} cores ({about['processor']}), {about['memory_gib']} GiB, "
        f"{about['system']}, Python {about['python']}; {versions}.\n"
    )
    images = [f"![{caption}](benchmarks/{name})\n" for name, caption in drawn]
    lines = [INTRODUCTION, machine_line, *images, tables(results)]
    (docs / "benchmarks.md").write_text("\n".join(lines))


def _targets(targets: list[dict[str, Any]]) -> str:
    rows = [
        f"| {t['what']} | {_number(t['value'])} | {RELATIONS[t['relation']]} {t['goal']:g} "
        f"| {'met' if t['met'] else '**not met**'} |"
        for t in targets
    ]
    return "\n".join(["| target | measured | goal | |", "|---|---|---|---|", *rows]) + "\n"


def _details(part: str, found: dict[str, Any]) -> str:
    if part == "throughput":
        return _throughput(found["servers"])
    if part == "unbatched":
        return _loads(found["servers"])
    if part == "large_bodies":
        named = {
            **found["alone"],
            "small alone, 100/s": found["small_alone"],
            "small beside 32 large": found["small_beside_32_large"],
            "32 large at once": found["large_32_at_once"],
        }
        return _loads(named) + f"\nResident memory of the gateway: at most {found['gateway_peak_mib']} MiB.\n"
    if part == "overload":
        neighbour = found["noisy_neighbour"]
        named = {
            "normal, 80 % of the capacity": found["normal"],
            "2 times the capacity": found["2x"],
            "10 times the capacity": found["10x"],
            "neighbour alone, 100/s": neighbour["alone"],
            "neighbour beside the noisy one": neighbour["beside"],
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
    if part == "overhead":
        return f"`predict` alone: {found['predict_ms']} ms (median).\n\n" + _loads(
            {"end to end": found["end_to_end"]}
        )
    return _loads({"Servery": found["load"]})


def _throughput(servers: dict[str, dict[str, Any]]) -> str:
    names = list(next(iter(servers.values())))
    head = "| | " + " | ".join(f"{connections} connections" for connections in servers) + " |"
    rows = [
        f"| {name} | " + " | ".join(_cell(servers[connections][name]) for connections in servers) + " |"
        for name in names
    ]
    return "\n".join([head, "|---" * (len(servers) + 1) + "|", *rows]) + "\n"


def _cell(one: dict[str, Any]) -> str:
    return f"{one['per_second']:.0f}/s, p50 {one['p50']:.1f}, p99 {one['p99']:.1f} ms"


def _loads(loads: dict[str, dict[str, Any]]) -> str:
    rows = [
        f"| {name} | {one['per_second']:.0f}/s | {one['p50']:.2f} | {one['p90']:.2f} | {one['p99']:.2f} "
        f"| {', '.join(f'{count} of {status}' for status, count in one['statuses'].items())} |"
        for name, one in loads.items()
    ]
    head = ["| | answers | p50 ms | p90 ms | p99 ms | statuses |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
