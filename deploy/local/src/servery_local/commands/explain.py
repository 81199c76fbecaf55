"""`servery explain`: why an endpoint has the replicas it has, from the command line."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from servery_local.commands.options import (
    DEFAULT_DATA_DIR,
    AsJson,
    DataDir,
    EndpointName,
    find_client,
    moment,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from rich.console import Console

HEADINGS = ("DECIDED", "SERVED ENTITY", "REPLICAS", "BY", "WHY")


def explain(
    context: typer.Context,
    name: EndpointName,
    decisions: Annotated[
        int, typer.Option(metavar="N", min=0, max=1000, help="How many of the last decisions.")
    ] = 10,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Tell why an endpoint has its replicas: what is seen, what was decided, and why."""
    from rich.console import Console

    scaling = find_client(context, data_dir).scaling(name, decisions)
    if as_json:
        print_json(scaling)
    else:
        _print(scaling, Console(highlight=False))


def _print(scaling: dict[str, Any], console: Console) -> None:
    console.print(f"[bold]{scaling['name']}[/]")
    rows = {"compute": ", ".join(map(used, scaling["compute"]))}
    if not scaling["scaler"]["answered"]:
        rows["scaler"] = scaling["scaler"]["message"]
    _print_rows(rows, console, indent=0)
    for entity in scaling["served_entities"]:
        version = entity["config_version"]
        console.print(
            f"\n[bold]{entity['name']}[/]  {entity['state']['deployment']}  config version {version}"
        )
        _print_rows(dict(about(entity, scaling, time.time())), console, indent=2)
    if scaling["decisions"]:
        console.print()
        print_table(HEADINGS, map(decided, scaling["decisions"]))


def about(entity: Mapping[str, Any], scaling: Mapping[str, Any], now: float) -> Iterator[tuple[str, str]]:
    """Yield titles and what is to be said of a served entity; ``now`` is in epoch seconds."""
    yield "replicas", replicas(entity)
    if entity["scale_to_zero_enabled"]:
        yield "to zero", f"after {scaling['scale_to_zero_seconds']:g} s without a request"
    target = entity["target_concurrency"]
    if target is not None:
        yield "target", f"{target:g} requests at a time per replica ({entity['target_concurrency_is']})"
    elif scaling["scaler"]["answered"]:
        yield "target", "not learned yet"
    if message := entity["state"]["deployment_state_message"]:
        yield "message", message
    if last := entity["last_decision"]:
        yield "seen", measures(last["seen"]) or "nothing"
        ago = max(0.0, now - last["decided_at"] / 1000)
        yield "decided", f"{last['desired_replicas']} wanted, {ago:.0f} s ago: {last['reason']}"
    elif scaling["scaler"]["answered"]:
        yield "decided", "nothing yet"


def replicas(entity: Mapping[str, Any]) -> str:
    """Write how many replicas there are, and how many there may be."""
    ready = "?" if entity["ready_replicas"] is None else entity["ready_replicas"]
    others = [f"{entity[f'{state}_replicas']} {state}" for state in ("starting", "waiting", "stopping")]
    doing = ", ".join(each for each in others if not each.startswith(("0 ", "None ")))
    return (
        f"{ready} ready of {entity['desired_replicas']} wanted{f' ({doing})' if doing else ''}; "
        f"from {entity['min_replicas']} to {entity['max_replicas']}, {entity['slots_per_replica']} slots each"
    )


def used(scope: Mapping[str, Any]) -> str:
    """Write how far a limit is used."""
    name = f" {scope['name']}" if "name" in scope else ""
    return f"{scope['kind']}{name} {scope['used']} of {scope['slots']} slots used"


def measures(seen: Mapping[str, float]) -> str:
    """Write what was seen, by name."""
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in seen.items())


def decided(decision: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """Return a kept decision as a row; the numbers it was made of are in ``--json``."""
    return (
        moment(decision["decided_at"]),
        decision["served_entity_name"],
        f"{decision['before']} -> {decision['after']}",
        decision["decided_by"],
        decision["reason"],
    )


def _print_rows(rows: Mapping[str, str], console: Console, *, indent: int) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for title, text in rows.items():
        table.add_row(" " * indent + title, Text(text))
    console.print(table)
