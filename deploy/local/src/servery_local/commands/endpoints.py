"""`servery deploy`, `cancel`, `query`, `list`, `get` and `delete`: endpoints from the command line.

With --json, standard output carries exactly what the API answered; progress goes to standard error.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from servery_local.commands.options import DEFAULT_DATA_DIR, FLAG, AsJson, DataDir
from servery_local.data_directory import DataDirectory
from servery_local.errors import LocalError

if TYPE_CHECKING:
    from rich.console import Console

    from servery_local.client import EndpointsClient

POLL_INTERVAL = 1.0
DEPLOYMENT_TIMEOUT = 20 * 60

EndpointName = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint.")]


def deploy(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="models:/NAME/VERSION or models:/NAME@ALIAS")],
    name: Annotated[str, typer.Option("--name", metavar="ENDPOINT", help="Endpoint to create or to update.")],
    size: Annotated[str, typer.Option(metavar="SIZE", help="Small, Medium or Large.")] = "Small",
    scale_to_zero: Annotated[
        bool,
        typer.Option(metavar=FLAG, help="Recorded in the config; this version never stops the last replica."),
    ] = False,
    wait: Annotated[
        bool, typer.Option(metavar=FLAG, help="Return when the endpoint serves the model.")
    ] = True,
    timeout: Annotated[
        int, typer.Option(metavar="SECONDS", min=1, help="Seconds to wait; the deployment itself goes on.")
    ] = DEPLOYMENT_TIMEOUT,
    variables: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="KEY=VALUE", help="Variable for the model; repeatable."),
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Serve a registered model at an endpoint, showing the build as it happens."""
    from rich.console import Console

    from servery_local.client import ApiError, EndpointsClient
    from servery_local.deployment import config_for, parse_model_uri, parse_variables

    reference = parse_model_uri(model)
    config = config_for(
        reference, size, scale_to_zero=scale_to_zero, variables=parse_variables(variables or ())
    )
    client = EndpointsClient.find(DataDirectory(data_dir))
    console = Console(stderr=as_json, highlight=False)
    try:
        client.get(name)
    except ApiError as error:
        if error.status != 404:
            raise
        endpoint = client.create(name, config)
        console.print(f"creating endpoint {name}", markup=False)
    else:
        endpoint = _update(client, name, config)
        console.print(f"updating endpoint {name}", markup=False)
    if wait:
        endpoint = _follow(client, endpoint, console, timeout)
        console.print(f"{name} is ready", markup=False)
        console.print(f"try it:  servery query {name} -d @request.json", markup=False)
    if as_json:
        _print_json(endpoint)


def cancel(name: EndpointName, data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False) -> None:
    """Give up the update of an endpoint that is in progress; what served before goes on."""
    from servery_local.client import EndpointsClient

    answer = EndpointsClient.find(DataDirectory(data_dir)).cancel_update(name)
    if as_json:
        _print_json(answer)
    else:
        print(f"canceled the update of endpoint {name}")


def query(
    name: EndpointName,
    data: Annotated[
        str, typer.Option("--data", "-d", metavar="BODY", help="The body, @FILE to read it, or - for stdin.")
    ],
    content_type: Annotated[str, typer.Option(metavar="TYPE", help="Such as text/csv.")] = "application/json",
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Send one request to an endpoint and print the answer."""
    from servery_local.client import EndpointsClient

    client = EndpointsClient.find(DataDirectory(data_dir))
    answer = client.invoke(name, _read_body(data), content_type).content
    sys.stdout.buffer.write(answer if answer.endswith(b"\n") else answer + b"\n")


def list_(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False) -> None:
    """List all endpoints."""
    from servery_local.client import EndpointsClient

    answer = EndpointsClient.find(DataDirectory(data_dir)).list()
    if as_json:
        _print_json(answer)
    else:
        _print_table(answer.get("endpoints", []))


def get(name: EndpointName, data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False) -> None:
    """Show one endpoint: its state, its models and how requests are split."""
    from rich.console import Console

    from servery_local.client import EndpointsClient

    endpoint = EndpointsClient.find(DataDirectory(data_dir)).get(name)
    if as_json:
        _print_json(endpoint)
    else:
        _print_endpoint(endpoint, Console(highlight=False))


def delete(name: EndpointName, data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False) -> None:
    """Delete an endpoint and stop its replicas."""
    from servery_local.client import EndpointsClient

    answer = EndpointsClient.find(DataDirectory(data_dir)).delete(name)
    if as_json:
        _print_json(answer)
    else:
        print(f"deleted endpoint {name}")


def _update(client: EndpointsClient, name: str, config: dict[str, Any]) -> dict[str, Any]:
    from servery_local.client import ApiError

    try:
        return client.update_config(name, config)
    except ApiError as error:
        if error.code == "RESOURCE_CONFLICT":
            raise LocalError(
                f"{error}\nCancel the update that is in progress:  servery cancel {name}"
            ) from error
        raise


def _follow(
    client: EndpointsClient, endpoint: dict[str, Any], console: Console, timeout: float
) -> dict[str, Any]:
    """Print messages and build logs until the deployment ends; `LocalError` if it fails."""
    from servery_local.deployment import Outcome, unseen, view

    name = endpoint["name"]
    deadline = time.monotonic() + timeout
    shown: dict[str, str] = {}
    logs: dict[str, str] = {}
    while True:
        now = view(endpoint)
        for entity, message in now.messages.items():
            if message and shown.get(entity) != message:
                console.print(f"[bold]{entity}[/]: ", end="")
                console.print(message, markup=False, soft_wrap=True)
                shown[entity] = message
        for entity in now.served_entities:
            log = client.build_logs(name, entity)
            new = unseen(logs.get(entity, ""), log)
            console.print(new, end="", markup=False, style="dim", soft_wrap=True)
            logs[entity] = log
        if now.outcome is Outcome.SUCCEEDED:
            return endpoint
        if now.outcome is Outcome.FAILED:
            reasons = "\n".join(message for message in now.messages.values() if message)
            raise LocalError(f"deployment of {name} failed: {reasons or 'no reason was given'}")
        if time.monotonic() > deadline:
            raise LocalError(
                f"{name} is not ready after {timeout:.0f} s; the deployment goes on, see `servery get {name}`"
            )
        time.sleep(POLL_INTERVAL)
        endpoint = client.get(name)


def _read_body(data: str) -> bytes:
    if data == "-":
        return sys.stdin.buffer.read()
    if data.startswith("@"):
        try:
            return Path(data[1:]).read_bytes()
        except OSError as error:
            raise LocalError(f"cannot read {data[1:]}: {error.strerror}") from error
    return data.encode()


def _print_json(answer: dict[str, Any]) -> None:
    print(json.dumps(answer, indent=2, ensure_ascii=False))


def _print_table(endpoints: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("NAME", "READY", "UPDATE", "MODELS", "CREATED"):
        table.add_column(heading, no_wrap=True)
    for endpoint in endpoints:
        state = endpoint.get("state", {})
        config = endpoint.get("config") or endpoint.get("pending_config") or {}
        models = ", ".join(
            f"{entity.get('entity_name')}/{entity.get('entity_version')}"
            for entity in config.get("served_entities", [])
        )
        table.add_row(
            endpoint["name"],
            _coloured(state.get("ready", "")),
            _coloured(state.get("config_update", "")),
            models,
            _timestamp(endpoint.get("creation_timestamp")),
        )
    Console(highlight=False).print(table)


def _print_endpoint(endpoint: dict[str, Any], console: Console) -> None:
    state = endpoint["state"]
    console.print(f"[bold]{endpoint['name']}[/]")
    console.print(f"ready    {_coloured(state.get('ready', ''))}")
    console.print(f"update   {_coloured(state.get('config_update', ''))}")
    console.print(f"creator  {endpoint.get('creator') or '-'}", markup=False)
    console.print(f"created  {_timestamp(endpoint.get('creation_timestamp'))}")
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
    state = entity.get("state") or {}
    console.print(f"  [bold]{entity['name']}[/]  {_coloured(state.get('deployment') or '')}")
    console.print(
        f"    model    {entity.get('entity_name')} version {entity.get('entity_version')}\n"
        f"    size     {entity.get('workload_size') or '-'}\n"
        f"    traffic  {percentage if percentage is not None else '-'} %\n"
        f"    message  {state.get('deployment_state_message') or '-'}",
        markup=False,
    )


def _coloured(state: str) -> str:
    if state in {"READY", "DEPLOYMENT_READY"}:
        return f"[green]{state}[/]"
    if state.endswith(("FAILED", "ABORTED", "CANCELED")):
        return f"[red]{state}[/]"
    return f"[yellow]{state}[/]" if state in {"IN_PROGRESS", "NOT_READY"} else state


def _timestamp(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "-"
    moment = datetime.fromtimestamp(milliseconds / 1000).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S")
