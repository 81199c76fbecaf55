"""`servery quota`: what workspaces may send and run, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from servery_local.commands.options import (
    DEFAULT_DATA_DIR,
    AsJson,
    DataDir,
    print_json,
    print_table,
    was_given,
)
from servery_local.data_directory import DataDirectory

if TYPE_CHECKING:
    from servery_local.quota_client import QuotaClient

quotas = typer.Typer(
    name="quota",
    help="Scoring requests per second that workspaces may send, and slots their replicas may take.",
    no_args_is_help=True,
)

DEFAULT = "default"
NAMES = {"qps": "qps", "compute": "compute_slots"}
"""What is typed, and what the API calls it."""

Workspace = Annotated[
    str | None, typer.Option(metavar="WORKSPACE", help="Its name or id; without, your own workspace.")
]


@quotas.command("set")
def set_quota(
    context: typer.Context,
    setting: Annotated[
        str,
        typer.Argument(
            metavar="qps=N|compute=N",
            help="Requests per second, or slots of all replicas together; =default for the default again.",
        ),
    ],
    workspace: Workspace = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Choose a quota of a workspace; it holds from now on. For operators."""
    name, value = parse(setting)
    client = _find_client(context, data_dir)
    quota = client.reset_quota(workspace, name) if value is None else client.set_quota(workspace, name, value)
    _show(quota, as_json=as_json)


@quotas.command("get")
def get_quota(
    context: typer.Context,
    workspace: Workspace = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Show the quotas of a workspace."""
    _show(_find_client(context, data_dir).quota(workspace), as_json=as_json)


@quotas.command("list")
def list_quotas(
    context: typer.Context, data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False
) -> None:
    """List the quotas of all workspaces. For operators."""
    found = _find_client(context, data_dir).quotas()
    if as_json:
        print_json({"quotas": found})
    else:
        print_table(
            ("ID", "NAME", "QPS", "COMPUTE"),
            [(q["workspace_id"], q["workspace_name"], q["qps"], _slots(q)) for q in found],
        )


def parse(setting: str) -> tuple[str, int | None]:
    """Return the API's name of the quota and its number, None for the default. Raises `typer.BadParameter`."""
    typed, _, value = setting.partition("=")
    name = NAMES.get(typed)
    # Not int(): it takes "1_000" and digits of other scripts.
    if name is None or not (value == DEFAULT or (value.isascii() and value.isdigit())):
        raise typer.BadParameter(
            f"'{setting}': write qps=N with a whole number of requests per second, compute=N with a whole number of "
            "slots, or default in place of N."
        )
    return name, None if value == DEFAULT else int(value)


def _find_client(context: typer.Context, data_dir: Path) -> QuotaClient:
    from servery_local.quota_client import QuotaClient

    return QuotaClient.find(DataDirectory(data_dir), insist=was_given(context, "data_dir"))


def _show(quota: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(quota)
    else:
        slots = _slots(quota)
        print(
            f"workspace {quota['workspace_name']} ({quota['workspace_id']}): {quota['qps']} requests per second, "
            f"{slots} compute slots"
        )


def _slots(quota: dict[str, Any]) -> int | str:
    slots = quota["compute_slots"]
    return "unlimited" if slots is None else slots
