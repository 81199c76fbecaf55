"""Options that several subcommands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FLAG = ""
"""Metavar of options that take no value; typer would write <bool>."""

DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        envvar="SERVERY_DATA_DIR",
        metavar="DIR",
        help="Where the stack keeps everything.",
        file_okay=False,
        resolve_path=True,
    ),
]
DEFAULT_DATA_DIR = Path(".servery")

AsJson = Annotated[bool, typer.Option("--json", metavar=FLAG, help="Print JSON and nothing else.")]
