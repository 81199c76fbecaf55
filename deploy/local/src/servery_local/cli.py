"""The `servery` command: composes the subcommands, and turns errors into words and exit codes.

Whatever takes long to import is imported by the subcommand that needs it: `servery --help` is typed
more often than `servery up`.
"""

from __future__ import annotations

import sys

import typer

from servery_local.commands import endpoints, stack
from servery_local.errors import LocalError

app = typer.Typer(
    name="servery",
    help="Serverless model serving on your own machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (stack.up, stack.down, stack.status, stack.logs, stack.env):
    app.command(rich_help_panel="Stack")(command)
for command in (
    endpoints.deploy,
    endpoints.cancel,
    endpoints.query,
    endpoints.list_,
    endpoints.get,
    endpoints.delete,
):
    app.command(command.__name__.rstrip("_"), rich_help_panel="Endpoints")(command)


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
