"""Secrets from the client that stores one to the model that is given it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import ResourceDoesNotExist
from databricks.sdk.errors.platform import InvalidParameterValue, ResourceAlreadyExists
from databricks.sdk.service.workspace import AclPermission
from tests.end_to_end.client import Client, Registered, describe, entity
from tests.models import zoo
from tests.models.bodies import Body, json_body

Names = Callable[[], str]
FIRST, SECOND = "first-hunter2-of-the-tests", "second-hunter2-of-the-tests"
REFERENCE = "{{secrets/e2e/password}}"


@pytest.fixture(scope="module")
def workspace(client: Client) -> WorkspaceClient:
    """The SDK, configured as its documentation says."""
    return WorkspaceClient(host=client.access.host, token=client.access.token)


@pytest.fixture
def scope(workspace: WorkspaceClient) -> Iterator[str]:
    """A scope with one secret, ``password``."""
    workspace.secrets.create_scope("e2e")
    workspace.secrets.put_secret("e2e", "password", string_value=FIRST)
    yield "e2e"
    workspace.secrets.delete_scope("e2e")


def reveal(*names: str) -> Body:
    return json_body("reveal", {"dataframe_records": [{"name": name} for name in names]})


def test_the_sdk_manages_scopes_secrets_and_acls(workspace: WorkspaceClient, scope: str):
    secrets = workspace.secrets
    with pytest.raises(ResourceAlreadyExists):
        secrets.create_scope(scope)
    assert scope in [one.name for one in secrets.list_scopes()]
    assert [one.key for one in secrets.list_secrets(scope)] == ["password"]
    assert workspace.dbutils.secrets.get(scope, "password") == FIRST
    secrets.put_acl(scope, "users", AclPermission.READ)
    assert secrets.get_acl(scope, "users").permission is AclPermission.READ
    assert {one.principal for one in secrets.list_acls(scope)} == {"admin", "users"}
    secrets.delete_acl(scope, "users")
    secrets.delete_secret(scope, "password")
    with pytest.raises(ResourceDoesNotExist):
        secrets.get_secret(scope, "password")


def test_a_model_is_given_a_secret_and_an_update_gives_it_the_next_one(
    client: Client, workspace: WorkspaceClient, register: Registered, new_name: Names, scope: str
):
    name, version = new_name(), register(zoo.reveal_environment())
    variables = {"PASSWORD": REFERENCE, "QUOTED": f"not {REFERENCE}"}
    client.deploy(name, "reveal_environment", version, environment_vars=variables)
    asked = reveal("PASSWORD", "QUOTED", "IS_IN_DATABRICKS_MODEL_SERVING_ENV", "SERVERY_ENCRYPTION_KEY")
    assert client.predictions(name, asked) == [FIRST, f"not {REFERENCE}", "true", ""]

    workspace.secrets.put_secret(scope, "password", string_value=SECOND)
    assert client.predictions(name, reveal("PASSWORD")) == [FIRST]
    changed = entity("reveal_environment", version, environment_vars=variables)
    answer = client.update(name, [changed])
    assert answer.status_code == 200, describe(answer)
    described = client.await_ready(name)
    assert client.predictions(name, reveal("PASSWORD")) == [SECOND]

    [served] = described["config"]["served_entities"]
    assert served["environment_vars"] == variables
    told = json.dumps(described) + client.build_logs(described) + client.stack.log_tails(100_000)
    assert FIRST not in told
    assert SECOND not in told


def test_an_endpoint_cannot_refer_to_a_secret_that_does_not_exist(
    workspace: WorkspaceClient, client: Client, register: Registered, new_name: Names
):
    version = register(zoo.reveal_environment())
    lost = entity("reveal_environment", version, environment_vars={"PASSWORD": "{{secrets/no-such/key}}"})
    answer = client.create(new_name(), [lost])
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert "PASSWORD" in answer.json()["message"]
    with pytest.raises(InvalidParameterValue):
        workspace.secrets.create_scope("no such name")


def test_a_model_reads_as_its_creator_with_a_client_that_nobody_configured(
    client: Client, register: Registered, new_name: Names
):
    name = new_name()
    client.deploy(name, "current_user", register(zoo.current_user()))
    assert client.predictions(name, zoo.current_user().sample) == ["admin", "has no token"]
