"""`servery workspace`, `user` and `token`: who may call, from the command line.

What a command makes is printed alone on standard output, so that it can be captured:
`export DATABRICKS_TOKEN=$(servery token create)`. With --json it is what the API answered.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from servery_local.commands.options import (
    DEFAULT_DATA_DIR,
    FLAG,
    AsJson,
    DataDir,
    find_access_client,
    moment,
    print_json,
    print_table,
)

workspaces = typer.Typer(name="workspace", help="Workspaces, for operators.", no_args_is_help=True)
users = typer.Typer(name="user", help="Users of the workspace, for administrators.", no_args_is_help=True)
tokens = typer.Typer(name="token", help="Personal access tokens.", no_args_is_help=True)

TokenId = Annotated[str, typer.Argument(metavar="TOKEN_ID", help="As `servery token list` shows it.")]
WholeWorkspace = Annotated[
    bool, typer.Option("--all", metavar=FLAG, help="Anybody's of the workspace, not only your own.")
]


@workspaces.command("create")
def create_workspace(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    admin: Annotated[str, typer.Option(metavar="USER", help="Name of its first administrator.")],
    region: Annotated[str, typer.Option(metavar="REGION", help="Where its models may be served.")] = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Make a workspace and print its administrator's token, which is shown this once."""
    made = find_access_client(context, data_dir).create_workspace(name, admin, region)
    if as_json:
        print_json(made)
    else:
        _say(f"created workspace {made['name']} ({made['workspace_id']}); the token of {made['admin_user']}:")
        print(made["token_value"])


@workspaces.command("list")
def list_workspaces(
    context: typer.Context, data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False
) -> None:
    """List all workspaces."""
    found = find_access_client(context, data_dir).workspaces()
    if as_json:
        print_json({"workspaces": found})
    else:
        print_table(
            ("ID", "NAME", "REGION", "CREATED"),
            [
                (w["workspace_id"], w["name"], w["region"] or "-", moment(w["creation_timestamp"]))
                for w in found
            ],
        )


@workspaces.command("delete")
def delete_workspace(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="WORKSPACE", help="Its name or id.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Delete a workspace that has no endpoints, with everybody in it."""
    find_access_client(context, data_dir).delete_workspace(name)
    print(f"deleted workspace {name}")


@users.command("create")
def create_user(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="USER")],
    admin: Annotated[
        bool, typer.Option("--admin", metavar=FLAG, help="Let the user administer the workspace.")
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Make a user of the workspace."""
    made = find_access_client(context, data_dir).create_user(name, admin=admin)
    if as_json:
        print_json(made)
    else:
        print(f"created user {made['userName']}")


@users.command("list")
def list_users(context: typer.Context, data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False) -> None:
    """List the users of the workspace."""
    found = find_access_client(context, data_dir).users()
    if as_json:
        print_json({"Resources": found})
    else:
        print_table(
            ("USER", "GROUPS", "ACTIVE"),
            [
                (u["userName"], ", ".join(g["display"] for g in u["groups"]), "yes" if u["active"] else "no")
                for u in found
            ],
        )


@users.command("delete")
def delete_user(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="USER")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Delete a user with their tokens. Their endpoints stay."""
    find_access_client(context, data_dir).delete_user(name)
    print(f"deleted user {name}")


@tokens.command("create")
def create_token(
    context: typer.Context,
    comment: Annotated[str, typer.Option(metavar="TEXT", help="What the token is for.")] = "",
    lifetime: Annotated[
        int | None, typer.Option(metavar="SECONDS", help="How long it is valid; without, until revoked.")
    ] = None,
    service_principal: Annotated[
        str | None,
        typer.Option(metavar="APPLICATION_ID", help="Make it for a service principal, not for yourself."),
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it; it is shown this once."""
    client = find_access_client(context, data_dir)
    if service_principal is None:
        made = client.create_token(comment, lifetime)
    else:
        made = client.create_token_for(service_principal, comment, lifetime)
    if as_json:
        print_json(made)
    else:
        print(made["token_value"])


@tokens.command("list")
def list_tokens(
    context: typer.Context,
    whole_workspace: WholeWorkspace = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """List valid tokens."""
    client = find_access_client(context, data_dir)
    found = client.all_tokens() if whole_workspace else client.tokens()
    if as_json:
        print_json({"token_infos": found})
    else:
        print_table(
            ("ID", "COMMENT", "MADE BY", "CREATED", "EXPIRES"),
            [
                (
                    token["token_id"],
                    token["comment"] or "-",
                    token.get("created_by_username", "you"),
                    moment(token["creation_time"]),
                    moment(token["expiry_time"]),
                )
                for token in found
            ],
        )


@tokens.command("revoke")
def revoke_token(
    context: typer.Context,
    token_id: TokenId,
    whole_workspace: WholeWorkspace = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Revoke a token; it is refused from now on."""
    find_access_client(context, data_dir).revoke_token(token_id, anybodys=whole_workspace)
    print(f"revoked token {token_id}")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
