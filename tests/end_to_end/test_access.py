"""Who may call, with the unmodified databricks-sdk and the ``servery`` command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import (
    BadRequest,
    InvalidParameterValue,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from databricks.sdk.service.iam import ComplexValue, Patch, PatchOp, PatchSchema
from tests.end_to_end.client import Client
from tests.end_to_end.deadlines import eventually

Names = Callable[[], str]
PATCH = [PatchSchema.URN_IETF_PARAMS_SCIM_API_MESSAGES_2_0_PATCH_OP]


def connect(client: Client, token: str) -> WorkspaceClient:
    """The SDK with a token, as its documentation says."""
    return WorkspaceClient(host=client.access.host, token=token)


def refused(workspace: WorkspaceClient) -> bool:
    """Whether the gateway refuses the caller."""
    try:
        workspace.current_user.me()
    except Unauthenticated:
        return True
    return False


def workspace_of(client: Client, workspace: WorkspaceClient) -> str:
    """The workspace the gateway says the caller is in."""
    headers = {"Authorization": f"Bearer {workspace.config.token}"}
    return client.http.get("/api/2.0/preview/scim/v2/Me", headers=headers).headers["x-databricks-org-id"]


@pytest.fixture(scope="module")
def admin(client: Client) -> WorkspaceClient:
    """The operator, who administers the first workspace."""
    return connect(client, client.access.token)


@pytest.fixture(scope="module")
def other(client: Client, servery: Callable[..., str]) -> Iterator[WorkspaceClient]:
    """The administrator of a second workspace."""
    made = json.loads(servery("workspace", "create", "e2e-other", "--admin", "eve@example.com", "--json"))
    yield connect(client, made["token_value"])
    servery("workspace", "delete", "e2e-other")


@pytest.fixture(scope="module")
def servery(client: Client) -> Callable[..., str]:
    """Runs the ``servery`` command as the operator, or with another token; returns what it printed."""

    def run(*arguments: str, token: str = client.access.token) -> str:
        answer = subprocess.run(
            [str(Path(sys.executable).with_name("servery")), *arguments],
            env={**os.environ, "DATABRICKS_HOST": client.access.host, "DATABRICKS_TOKEN": token},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert answer.returncode == 0, f"{arguments}: {answer.stdout}{answer.stderr}"
        return answer.stdout

    return run


def test_a_token_works_from_its_creation_until_it_is_revoked(admin: WorkspaceClient, client: Client):
    made = admin.tokens.create(comment="notebook", lifetime_seconds=3600)
    assert made.token_value is not None
    assert made.token_info is not None
    assert made.token_info.token_id is not None
    mine = connect(client, made.token_value)
    assert mine.current_user.me().user_name == "admin"
    assert [t.comment for t in mine.tokens.list() if t.token_id == made.token_info.token_id] == ["notebook"]

    admin.tokens.delete(made.token_info.token_id)
    eventually(lambda: refused(mine), within=5, what="the revoked token is refused")
    with pytest.raises(NotFound):
        admin.tokens.delete(made.token_info.token_id)


def test_users_and_groups_are_managed(admin: WorkspaceClient):
    user = admin.users.create(user_name="ann@example.com", display_name="Ann")
    group = admin.groups.create(display_name="e2e-data", members=[ComplexValue(value=user.id)])
    assert user.id is not None
    assert group.id is not None
    try:
        [found] = admin.users.list(filter='userName eq "ann@example.com"')
        assert (found.id, found.display_name, found.active) == (user.id, "Ann", True)
        assert {g.display for g in found.groups or []} == {"users", "e2e-data"}
        remove = Patch(op=PatchOp.REMOVE, path=f'members[value eq "{user.id}"]')
        admin.groups.patch(group.id, operations=[remove], schemas=PATCH)
        assert not admin.groups.get(group.id).members
        add = Patch(op=PatchOp.ADD, value={"members": [{"value": user.id}]})
        admin.groups.patch(group.id, operations=[add], schemas=PATCH)
        assert [m.display for m in admin.groups.get(group.id).members or []] == ["Ann"]
        admin.users.update(user.id, user_name="ann@example.com", display_name="Ann A.", active=False)
        changed = admin.users.get(user.id)
        assert (changed.display_name, changed.active) == ("Ann A.", False)
        with pytest.raises(InvalidParameterValue):
            admin.users.update(user.id, user_name="other@example.com")
        assert "e2e-data" in [g.display_name for g in admin.groups.list()]
    finally:
        admin.users.delete(user.id)
        admin.groups.delete(group.id)
    with pytest.raises(NotFound):
        admin.users.get(user.id)


def test_a_service_principal_works_with_a_token_an_administrator_made_for_it(
    admin: WorkspaceClient, client: Client, new_name: Names
):
    robot = admin.service_principals.create(display_name="ci")
    assert robot.id is not None
    assert robot.application_id is not None
    try:
        made = admin.token_management.create_obo_token(robot.application_id, comment="ci")
        assert made.token_value is not None
        assert made.token_info is not None
        token_id = made.token_info.token_id
        assert token_id is not None
        its = connect(client, made.token_value)
        assert its.current_user.me().user_name == robot.application_id
        name = new_name()
        its.serving_endpoints.create(name=name)
        created = admin.serving_endpoints.get(name)
        assert created.creator == robot.application_id
        with pytest.raises(PermissionDenied):
            its.users.create(user_name="x@example.com")
        assert token_id in [t.token_id for t in admin.token_management.list()]
        admin.token_management.delete(token_id)
        eventually(lambda: refused(its), within=5, what="the revoked token is refused")
    finally:
        admin.service_principals.delete(robot.id)


def test_secrets_of_a_service_principal_are_shown_once(admin: WorkspaceClient):
    robot = admin.service_principals.create(display_name="m2m")
    assert robot.id is not None
    try:
        made = admin.service_principal_secrets_proxy.create(robot.id, lifetime="3600s")
        assert made.id is not None
        assert made.secret is not None
        [listed] = admin.service_principal_secrets_proxy.list(robot.id)
        assert (listed.id, listed.secret_hash) == (made.id, made.secret_hash)
        assert made.secret not in json.dumps(listed.as_dict())
        admin.service_principal_secrets_proxy.delete(robot.id, made.id)
        assert list(admin.service_principal_secrets_proxy.list(robot.id)) == []
    finally:
        admin.service_principals.delete(robot.id)


def test_a_service_principal_signs_in_with_its_secret(admin: WorkspaceClient, client: Client):
    robot = admin.service_principals.create(display_name="signs-in")
    assert robot.id is not None
    try:
        secret = admin.service_principal_secrets_proxy.create(robot.id).secret
        its = WorkspaceClient(host=client.access.host, client_id=robot.application_id, client_secret=secret)
        assert its.config.auth_type == "oauth-m2m"
        me = its.current_user.me()
        assert (me.user_name, me.display_name) == (robot.application_id, "signs-in")
        stop = Patch(op=PatchOp.REPLACE, value={"active": False})
        admin.service_principals.patch(robot.id, operations=[stop], schemas=PATCH)
        eventually(lambda: refused(its), within=5, what="its token, though still valid, is refused")
    finally:
        admin.service_principals.delete(robot.id)


def test_a_deactivated_user_is_refused(admin: WorkspaceClient, client: Client):
    robot = admin.service_principals.create(display_name="leaves")
    assert robot.id is not None
    assert robot.application_id is not None
    try:
        token = admin.token_management.create_obo_token(robot.application_id).token_value
        assert token is not None
        its = connect(client, token)
        its.current_user.me()
        stop = Patch(op=PatchOp.REPLACE, path="active", value="false")
        admin.service_principals.patch(robot.id, operations=[stop], schemas=PATCH)
        eventually(lambda: refused(its), within=5, what="the deactivated principal is refused")
    finally:
        admin.service_principals.delete(robot.id)


def test_workspaces_do_not_see_each_other(
    admin: WorkspaceClient, other: WorkspaceClient, new_name: Names, client: Client
):
    assert other.current_user.me().user_name == "eve@example.com"
    seen = {workspace_of(client, workspace) for workspace in (admin, other)}
    assert len(seen) == 2, seen
    name = new_name()
    admin.serving_endpoints.create(name=name)
    assert name not in [endpoint.name for endpoint in other.serving_endpoints.list()]
    with pytest.raises(NotFound):
        other.serving_endpoints.get(name)
    assert [user.user_name for user in other.users.list()] == ["eve@example.com"]
    other.serving_endpoints.create(name=name)
    other.serving_endpoints.delete(name)
    admin.serving_endpoints.get(name)
    forbidden = client.http.get(
        "/api/2.0/servery/workspaces", headers={"Authorization": f"Bearer {other.config.token}"}
    )
    client.assert_error(forbidden, "PERMISSION_DENIED")


def test_the_last_administrator_of_a_workspace_stays(other: WorkspaceClient):
    [eve] = other.users.list(filter='userName eq "eve@example.com"')
    assert eve.id is not None
    with pytest.raises(BadRequest, match="without an administrator"):
        other.users.delete(eve.id)
    [admins] = other.groups.list(filter='displayName eq "admins"')
    assert admins.id is not None
    leave = Patch(op=PatchOp.REMOVE, path=f'members[value eq "{eve.id}"]')
    with pytest.raises(BadRequest, match="without an administrator"):
        other.groups.patch(admins.id, operations=[leave], schemas=PATCH)
    assert [m.value for m in other.groups.get(admins.id).members or []] == [eve.id]


def test_the_command_line_makes_users_and_tokens(servery: Callable[..., str], other: WorkspaceClient):
    token = other.config.token or ""
    mine = servery("token", "create", "--comment", "cli", token=token).strip()
    servery("user", "create", "bob@example.com", "--admin", token=mine)
    listed = servery("user", "list", token=mine)
    assert "bob@example.com" in listed
    users: list[Any] = json.loads(servery("user", "list", "--json", token=mine))["Resources"]
    assert {u["userName"]: len(u["groups"]) for u in users} == {"eve@example.com": 2, "bob@example.com": 2}
    servery("user", "delete", "bob@example.com", token=mine)
    infos: list[Any] = json.loads(servery("token", "list", "--json", token=mine))["token_infos"]
    [made] = [info for info in infos if info["comment"] == "cli"]
    assert made["token_id"] in servery("token", "list", "--all", token=mine)
    servery("token", "revoke", made["token_id"], token=mine)
    left: list[Any] = json.loads(servery("token", "list", "--json", token=token))["token_infos"]
    assert made["token_id"] not in [info["token_id"] for info in left]
    assert "e2e-other" in servery("workspace", "list")
