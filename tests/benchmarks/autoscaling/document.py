"""The measured section of docs/autoscaling.md: a table, and two plots beside those of the other benchmarks."""

from pathlib import Path
from typing import Any

from tests.benchmarks.autoscaling.comparison import OURS, safest
from tests.benchmarks.autoscaling.simulation import Workload

BEGIN = "<!-- simulator: begin (written by make bench ONLY=autoscaling) -->"
END = "<!-- simulator: end -->"
BOUND = Workload.bound


def write(found: dict[str, Any], docs: Path) -> None:
    """Replace the section between the markers and the plots."""
    page = docs / "autoscaling.md"
    text = page.read_text()
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{page} has no section for the simulator: put in the lines {BEGIN} and {END}.")
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    images = [f"![{caption}](benchmarks/{name})\n" for name, caption in _draw(found, docs / "benchmarks")]
    page.write_text("\n".join([before + BEGIN, "", section(found), *images, END + after]))


def section(found: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    names = list(found["total"])
    rows = [
        f"| {name} | " + " | ".join(_cell(one["policies"][policy]) for policy in names) + " |"
        for name, one in found["traces"].items()
    ]
    total = found["total"]
    rows.append("| **all** | " + " | ".join(_cell(total[policy]) for policy in names) + " |")
    waited = "| request-hours waited, all | " + " | ".join(
        f"{total[policy]['waited_seconds'] / 3600:,.1f}" for policy in names
    )
    about = [f"* **{name}**: {one['about']}." for name, one in found["traces"].items()]
    requests = total[OURS]["requests"]
    best = safest(total)
    return "\n".join(
        [
            f"{requests:,} requests in {found['seeds']} draws of each trace, the same for every policy. Each cell:",
            f"requests that waited longer than {BOUND:g} s / replica-hours paid for.",
            "",
            "| trace | " + " | ".join(names) + " |",
            "|---" * (len(names) + 1) + "|",
            *rows,
            waited + " |",
            "",
            f"Beside {best}, the peer with the fewest such requests: "
            f"{_ratio(total, OURS, best, 'violations')} of them with "
            f"{_ratio(total, OURS, best, 'replica_seconds')} of its replica-hours.",
            "",
            *about,
            "",
            f"A tick with 10,000 idle endpoints takes {found['cost']['idle_tick_us']:.0f} µs; a decision about a busy "
            f"one takes {found['cost']['busy_decision_us']:.0f} µs.",
            "",
        ]
    )


def _cell(figures: dict[str, Any]) -> str:
    return f"{figures['violations']:,} / {figures['replica_seconds'] / 3600:,.1f}"


def _ratio(total: dict[str, Any], ours: str, theirs: str, figure: str) -> str:
    return f"{total[ours][figure] / total[theirs][figure]:.0%}"


def _draw(found: dict[str, Any], directory: Path) -> list[tuple[str, str]]:
    import matplotlib as mpl

    mpl.use("svg")
    # The same results give the same bytes.
    mpl.rcParams["svg.hashsalt"] = "servery"
    directory.mkdir(exist_ok=True)
    return [_costs(found, directory), _lines(found, directory)]


def _costs(found: dict[str, Any], directory: Path) -> tuple[str, str]:
    import matplotlib.pyplot as plt

    figure, (late, paid) = plt.subplots(2, 1, figsize=(9, 5.5), sharex=True)
    names = list(found["total"])
    width = 0.8 / len(names)
    for at, policy in enumerate(names):
        places = [place + at * width for place in range(len(found["traces"]))]
        figures = [one["policies"][policy] for one in found["traces"].values()]
        late.bar(places, [f["violations"] / f["requests"] * 1e6 for f in figures], width, label=policy)
        paid.bar(places, [f["replica_seconds"] / 3600 for f in figures], width)
    late.set_yscale("symlog", linthresh=1)
    late.set_ylabel(f"of a million waited\nlonger than {BOUND:g} s")
    paid.set_yscale("log")
    paid.set_ylabel("replica-hours (log)")
    paid.set_xticks([place + 0.4 - width / 2 for place in range(len(found["traces"]))], list(found["traces"]))
    late.legend(fontsize=7)
    return _save(figure, directory, "autoscaling.svg", "Late requests and replica-hours, by trace and policy")


def _lines(found: dict[str, Any], directory: Path) -> tuple[str, str]:
    import matplotlib.pyplot as plt

    shown = {name: one["lines"] for name, one in found["traces"].items() if one["lines"]}
    figure, panels = plt.subplots(len(shown), 1, figsize=(9, 2.2 * len(shown)))
    for axes, (name, lines) in zip(panels, shown.items(), strict=True):
        for policy, line in lines.items():
            axes.plot(line, label=policy, linewidth=1.6 if policy == OURS else 0.9)
        axes.set_title(name, fontsize=8)
        axes.set_yscale("log")
        axes.set_xticks([])
        axes.set_ylabel("ready (log)", fontsize=7)
    panels[0].legend(fontsize=7)
    return _save(figure, directory, "autoscaling_replicas.svg", "Ready replicas over the time of four traces")


def _save(figure: Any, directory: Path, name: str, caption: str) -> tuple[str, str]:
    figure.tight_layout()
    figure.savefig(directory / name, metadata={"Date": None})
    return name, caption
