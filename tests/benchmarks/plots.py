"""The plots of docs/benchmarks.md, as SVG."""

from pathlib import Path
from typing import Any


def draw(results: dict[str, Any], directory: Path) -> list[tuple[str, str]]:
    """Draw what there are results for; return file names and captions."""
    import matplotlib as mpl

    mpl.use("svg")
    # The same results give the same bytes.
    mpl.rcParams["svg.hashsalt"] = "servery"
    parts = results["parts"]
    drawn: list[tuple[str, str]] = []
    if "throughput" in parts:
        drawn.append(_throughput(parts["throughput"]["servers"], directory))
        drawn.append(_latency(parts["throughput"], directory))
    if "sustained" in parts:
        drawn.append(_memory(parts["sustained"]["memory_mib"], directory))
    if "overload" in parts:
        drawn.append(_goodput(parts["overload"], directory))
    return drawn


def _throughput(servers: dict[str, Any], directory: Path) -> tuple[str, str]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3.5))
    names = list(next(iter(servers.values())))
    width = 0.8 / len(names)
    for at, name in enumerate(names):
        places = [place + at * width for place in range(len(servers))]
        bars = axes.bar(places, [found[name]["per_second"] for found in servers.values()], width, label=name)
        axes.bar_label(bars, fmt="%.0f", fontsize=7)
    axes.set_yscale("log")
    axes.set_xticks(
        [place + 0.4 - width / 2 for place in range(len(servers))], [f"{c} connections" for c in servers]
    )
    axes.set_ylabel("answers a second (log)")
    axes.legend(fontsize=7)
    return _save(figure, directory, "throughput.svg", "Answers a second, one row of iris")


def _latency(found: dict[str, Any], directory: Path) -> tuple[str, str]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3))
    for name, latencies in found["latency_ms_at_32"].items():
        axes.plot(latencies, found["shares"], label=name)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds (log)")
    axes.set_ylabel("percent answered within")
    axes.set_ylim(0, 100)
    axes.legend(fontsize=7)
    return _save(figure, directory, "latency.svg", "Latencies at 32 connections, one row of iris")


def _memory(memory: list[dict[str, float]], directory: Path) -> tuple[str, str]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3))
    for name in (name for name in memory[0] if name != "at"):
        axes.plot([seen["at"] for seen in memory], [seen.get(name, 0.0) for seen in memory], label=name)
    axes.set_xlabel("seconds at 3,000 requests a second")
    axes.set_ylabel("resident memory, MiB")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7)
    return _save(figure, directory, "memory.svg", "Memory of the processes over five minutes")


def _goodput(overload: dict[str, Any], directory: Path) -> tuple[str, str]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3))
    for name, label in (("2x", "2 times the capacity"), ("10x", "10 times the capacity")):
        axes.plot(overload[name]["goodput_by_second"], label=label)
    axes.axhline(1.0, color="grey", linewidth=0.5)
    axes.set_xlabel("second of the overload")
    axes.set_ylabel("goodput / capacity")
    axes.set_ylim(0, 1.3)
    axes.legend(fontsize=7)
    return _save(figure, directory, "goodput.svg", "Goodput under overload")


def _save(figure: Any, directory: Path, name: str, caption: str) -> tuple[str, str]:
    figure.tight_layout()
    figure.savefig(directory / name, metadata={"Date": None})
    return name, caption
