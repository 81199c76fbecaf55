"""What several subcommands share: options, finding the stack they talk to, and printing its answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from servery_local.data_directory import DataDirectory
from servery_local.invocation import DATA_DIR_VARIABLE
from servery_local.invocation import DEFAULT_DATA_DIR as DEFAULT_DATA_DIR

if TYPE_CHECKING:
    from servery_local.access_client import AccessClient
    from servery_local.client import EndpointsClient

FLAG = ""
"""Metavar of options that take no value; typer would write <bool>."""

DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        envvar=DATA_DIR_VARIABLE,
        metavar="DIR",
        help="Where the stack keeps everything.",
        file_okay=False,
        resolve_path=True,
    ),
]

AsJson = Annotated[bool, typer.Option("--json", metavar=FLAG, help="Print JSON and nothing else.")]
EndpointName = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint.")]


def find_client(context: typer.Context, data_dir: Path) -> EndpointsClient:
    """Return a client for the stack that was named: by --data-dir, else by DATABRICKS_HOST, else the one here."""
    from servery_local.client import EndpointsClient

    return EndpointsClient.find(DataDirectory(data_dir), insist=was_given(context, "data_dir"))


def find_access_client(context: typer.Context, data_dir: Path) -> AccessClient:
    """Like `find_client`, for calls about who may call."""
    from servery_local.access_client import AccessClient

    return AccessClient.find(DataDirectory(data_dir), insist=was_given(context, "data_dir"))


def print_json(answer: dict[str, Any]) -> None:
    """Print an answer of the API."""
    print(json.dumps(answer, indent=2, ensure_ascii=False))


def was_given(context: typer.Context, option: str) -> bool:
    """Tell whether an option was typed, rather than taken from the environment or its default."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"
