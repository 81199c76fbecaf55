"""`servery query`, `list`, `get` and `delete`: endpoints from the command line.

With --json, standard output carries exactly what the API answered.
"""

from __future__ import annotations

import sys
from pathlib import Path
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
from servery_local.errors import LocalError

if TYPE_CHECKING:
    from rich.console import Console

HEADINGS = ("NAME", "READY", "UPDATE", "MODELS", "CREATED")


def query(
    context: typer.Context,
    name: EndpointName,
    data: Annotated[
        str, typer.Option("--data", "-d", metavar="BODY", help="The body, @FILE to read it, or - for stdin.")
    ],
    content_type: Annotated[str, typer.Option(metavar="TYPE", help="Such as text/csv.")] = "application/json",
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Send one request to an endpoint and print the answer."""
    from servery_local.client import ApiError

    client = find_client(context, data_dir)
    try:
        answer = client.invoke(name, _read_body(data), content_type).content
    except ApiError as error:
        if error.stack_trace:
            print(error.stack_trace.rstrip(), file=sys.stderr)
        raise
    sys.stdout.buffer.write(answer if answer.endswith(b"\n") else answer + b"\n")


def list_(context: typer.Context, data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False) -> None:
    """List all endpoints."""
    answer = find_client(context, data_dir).list()
    if as_json:
        print_json(answer)
    else:
        print_table(HEADINGS, [_row(endpoint) for endpoint in answer.get("endpoints", [])])


def get(
    context: typer.Context,
    name: EndpointName,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Show one endpoint: its state, its models and how requests are split."""
    from rich.console import Console

    endpoint = find_client(context, data_dir).get(name)
    if as_json:
        print_json(endpoint)
    else:
        _print_endpoint(endpoint, Console(highlight=False))


def delete(
    context: typer.Context,
    name: EndpointName,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Delete an endpoint and stop its replicas."""
    answer = find_client(context, data_dir).delete(name)
    if as_json:
        print_json(answer)
    else:
        print(f"deleted endpoint {name}")


def _read_body(data: str) -> bytes:
    if data == "-":
        return sys.stdin.buffer.read()
    if data.startswith("@"):
        try:
            return Path(data[1:]).read_bytes()
        except OSError as error:
            raise LocalError(f"cannot read {data[1:]}: {error.strerror}") from error
    return data.encode()


def _row(endpoint: dict[str, Any]) -> tuple[object, ...]:
    from rich.text import Text

    state = endpoint.get("state", {})
    config = endpoint.get("config") or endpoint.get("pending_config") or {}
    models = (f"{e.get('entity_name')}/{e.get('entity_version')}" for e in config.get("served_entities", []))
    return (
        endpoint["name"],
        Text.from_markup(_coloured(state.get("ready", ""))),
        Text.from_markup(_coloured(state.get("config_update", ""))),
        ", ".join(models),
        moment(endpoint.get("creation_timestamp")),
    )


def _print_endpoint(endpoint: dict[str, Any], console: Console) -> None:
    state = endpoint["state"]
    console.print(f"[bold]{endpoint['name']}[/]")
    console.print(f"ready    {_coloured(state.get('ready', ''))}")
    console.print(f"update   {_coloured(state.get('config_update', ''))}")
    console.print(f"creator  {endpoint.get('creator') or '-'}", markup=False)
    console.print(f"created  {moment(endpoint.get('creation_timestamp'))}")
    for title, key in (("serving", "config"), ("pending", "pending_config")):
        config = endpoint.get(key)
        if not config:
            continue
        console.print(f"{title}  config version {config.get('config_version', '-')}")
        routes = (config.get("traffic_config") or {}).get("routes") or []
        share = {route.get("served_entity_name"): route["traffic_percentage"] for route in routes}
        for entity in config.get("served_entities", []):
            _print_entity(entity, share.get(entity["name"]), console)


def _print_entity(entity: dict[str, Any], percentage: object, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    state = entity.get("state") or {}
    console.print(f"  [bold]{entity['name']}[/]  {_coloured(state.get('deployment') or '')}")
    rows = {
        "model": f"{entity.get('entity_name')} version {entity.get('entity_version')}",
        "size": entity.get("workload_size") or "-",
        "replicas": _replicas(entity.get("servery")),
        "traffic": f"{percentage if percentage is not None else '-'} %",
        "message": state.get("deployment_state_message") or "",
    }
    # A table, so that a long message goes on below its own beginning.
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for title, value in rows.items():
        if value:
            table.add_row(f"    {title}", Text(str(value)))
    console.print(table)


def _replicas(scaled: dict[str, Any] | None) -> str:
    if scaled is None:  # the API of Databricks, or of an older release
        return ""
    ready = "?" if scaled["ready_replicas"] is None else scaled["ready_replicas"]
    return (
        f"{ready} of {scaled['desired_replicas']} (from {scaled['min_replicas']} to {scaled['max_replicas']})"
    )


def _coloured(state: str) -> str:
    if state in {"READY", "DEPLOYMENT_READY"}:
        return f"[green]{state}[/]"
    if state.endswith(("FAILED", "ABORTED", "CANCELED")):
        return f"[red]{state}[/]"
    return f"[yellow]{state}[/]" if state in {"IN_PROGRESS", "NOT_READY"} else state
