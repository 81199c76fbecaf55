"""The `servery` command: composes the subcommands, and turns errors into words and exit codes.

Whatever takes long to import is imported by the subcommand that needs it: `servery --help` is typed
more often than `servery up`.
"""

from __future__ import annotations

import os
import sys
from importlib import metadata
from typing import Annotated

import typer

from servery_local.commands import access, deploy, endpoints, explain, quota, stack
from servery_local.commands.options import FLAG
from servery_local.errors import LocalError

app = typer.Typer(
    name="servery",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (stack.up, stack.down, stack.status, stack.logs, stack.env):
    app.command(rich_help_panel="Stack")(command)
for command in (
    deploy.deploy,
    deploy.cancel,
    endpoints.query,
    endpoints.list_,
    endpoints.get,
    explain.explain,
    endpoints.delete,
):
    app.command(command.__name__.rstrip("_"), rich_help_panel="Endpoints")(command)

for group in (access.workspaces, access.users, access.tokens, quota.quotas):
    app.add_typer(group, rich_help_panel="Access")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"servery {metadata.version('servery-local')}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar=FLAG,
            help="Print the version and exit.",
            is_eager=True,
            callback=_print_version,
        ),
    ] = False,
) -> None:
    """Serverless model serving on your own machine."""


def main() -> None:
    """Run the command line; exit code 1 for errors with a message of their own."""
    try:
        app()
    except LocalError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output, such as `head`, had enough
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:  # such as a data directory that may not be read
        if error.filename is None:
            raise
        print(f"error: {os.fsdecode(error.filename)}: {error.strerror}", file=sys.stderr)
        sys.exit(1)
