"""What several subcommands share: options, finding the stack they talk to, and printing its answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from servery_local.data_directory import DataDirectory
from servery_local.invocation import DATA_DIR_VARIABLE
from servery_local.invocation import DEFAULT_DATA_DIR as DEFAULT_DATA_DIR

if TYPE_CHECKING:
    from servery_local.access_client import AccessClient
    from servery_local.client import EndpointsClient

UNBOUNDED_WIDTH = 100_000
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


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows below headings. A cell may be rich's Text; others are written as they are.

    A terminal gets lines that fit; what another program reads is never cut.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = UNBOUNDED_WIDTH
    console.print(table)


def moment(milliseconds: int | None) -> str:
    """Write epoch milliseconds in the reader's own time; `-` for no time (None, or -1 as for what never expires)."""
    if milliseconds is None or milliseconds < 0:
        return "-"
    return datetime.fromtimestamp(milliseconds / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def was_given(context: typer.Context, option: str) -> bool:
    """Tell whether an option was typed, rather than taken from the environment or its default."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"
