"""The unmodified clients work: databricks-sdk, ``mlflow.deployments`` and curl."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import DatabricksError, NotFound, ResourceAlreadyExists, Unauthenticated
from databricks.sdk.errors.platform import BadRequest
from databricks.sdk.service.serving import (
    EndpointCoreConfigInput,
    EndpointStateConfigUpdate,
    EndpointStateReady,
    Route,
    ServedEntityInput,
    ServedModelInput,
    TrafficConfig,
)
from tests.end_to_end.client import Client, Registered, describe
from tests.models import zoo
from tests.models.estimators import IRIS

PATIENCE = timedelta(minutes=3)
RECORDS: list[Any] = IRIS.to_dict(orient="records")
Names = Callable[[], str]


@pytest.fixture(scope="module")
def workspace(client: Client) -> WorkspaceClient:
    """The SDK, configured as its documentation says."""
    return WorkspaceClient(host=client.access.host, token=client.access.token)


@pytest.fixture(scope="module")
def iris(client: Client, register: Registered) -> Iterator[str]:
    """An endpoint of the iris classifier."""
    client.deploy("sdk-iris", "iris_classifier", register(zoo.IRIS_CLASSIFIER))
    yield "sdk-iris"
    client.delete("sdk-iris")


def served(version: str, name: str | None = None) -> ServedEntityInput:
    """One version of the iris classifier."""
    return ServedEntityInput(
        name=name,
        entity_name="iris_classifier",
        entity_version=version,
        workload_size="Small",
        scale_to_zero_enabled=False,
    )


def test_the_caller_is_told_who_they_are(workspace: WorkspaceClient):
    me = workspace.current_user.me()
    assert me.user_name == "admin"
    assert me.active
    assert workspace.get_workspace_id() == 1


def test_creates_queries_updates_and_deletes_with_served_entities(
    workspace: WorkspaceClient, register: Registered, new_name: Names
):
    name = new_name()
    first = register(zoo.IRIS_CLASSIFIER)
    second = register(zoo.IRIS_CLASSIFIER, variant="second")
    endpoints = workspace.serving_endpoints

    created = endpoints.create_and_wait(
        name=name,
        config=EndpointCoreConfigInput(name=name, served_entities=[served(first)]),
        timeout=PATIENCE,
    )
    assert created.state is not None
    assert created.state.ready is EndpointStateReady.READY
    assert created.state.config_update is EndpointStateConfigUpdate.NOT_UPDATING
    assert created.config is not None
    assert created.config.config_version == 1
    assert created.pending_config is None

    got = endpoints.get(name)
    assert got.id
    assert got.creator == "admin"
    assert got.config is not None
    (entity,) = got.config.served_entities or []
    assert (entity.name, entity.entity_version) == (f"iris_classifier-{first}", first)
    assert name in [endpoint.name for endpoint in endpoints.list()]

    answer = endpoints.query(name, dataframe_records=RECORDS)
    assert answer.predictions == [0, 1, 2]
    assert answer.served_model_name == f"iris_classifier-{first}"

    updated = endpoints.update_config_and_wait(
        name,
        served_entities=[served(second, "candidate")],
        traffic_config=TrafficConfig(routes=[Route(served_model_name="candidate", traffic_percentage=100)]),
        timeout=PATIENCE,
    )
    assert updated.config is not None
    assert updated.config.config_version == 2
    assert endpoints.query(name, instances=RECORDS).served_model_name == "candidate"

    endpoints.delete(name)
    with pytest.raises(NotFound):
        endpoints.get(name)
    assert name not in [endpoint.name for endpoint in endpoints.list()]


def test_older_served_models_fields_work_as_well(
    workspace: WorkspaceClient, register: Registered, new_name: Names
):
    name, version = new_name(), register(zoo.IRIS_CLASSIFIER)
    older = ServedModelInput(
        model_name="iris_classifier",
        model_version=version,
        workload_size="Small",
        scale_to_zero_enabled=False,
    )
    created = workspace.serving_endpoints.create_and_wait(
        name=name, config=EndpointCoreConfigInput(name=name, served_models=[older]), timeout=PATIENCE
    )
    assert created.config is not None
    (model,) = created.config.served_models or []
    assert (model.model_name, model.model_version) == ("iris_classifier", version)
    assert created.config.served_entities
    columns = IRIS.to_dict(orient="list")
    assert workspace.serving_endpoints.query(name, inputs=columns).predictions == [0, 1, 2]


def test_sdk_raises_the_exception_each_error_stands_for(workspace: WorkspaceClient, iris: str):
    with pytest.raises(NotFound):
        workspace.serving_endpoints.get("no-such-endpoint")
    with pytest.raises(NotFound, match="does not exist"):
        workspace.serving_endpoints.query("no-such-endpoint", inputs=[1])
    with pytest.raises(DatabricksError, match="enforce schema"):
        workspace.serving_endpoints.query(iris, dataframe_records=[{"wrong": 1}])
    config = EndpointCoreConfigInput(name=iris, served_entities=[served("1")])
    with pytest.raises((ResourceAlreadyExists, BadRequest), match=iris):
        workspace.serving_endpoints.create(name=iris, config=config)


def test_build_logs_and_server_logs_are_read_with_the_sdk(workspace: WorkspaceClient, iris: str):
    described = workspace.serving_endpoints.get(iris)
    assert described.config is not None
    (entity,) = described.config.served_entities or []
    assert entity.name is not None
    assert workspace.serving_endpoints.build_logs(iris, entity.name).logs.strip()
    assert isinstance(workspace.serving_endpoints.logs(iris, entity.name).logs, str)


def test_wrong_token_is_refused_everywhere(client: Client, iris: str):
    stranger = WorkspaceClient(host=client.access.host, token="dapi0123456789abcdef0123456789abcdef")
    with pytest.raises(Unauthenticated):
        stranger.serving_endpoints.get(iris)
    with pytest.raises(Unauthenticated):
        list(stranger.serving_endpoints.list())
    with pytest.raises(DatabricksError) as refused:
        stranger.serving_endpoints.query(iris, inputs=[1])
    assert refused.value.error_code == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no header"),
        pytest.param({"Authorization": "Bearer"}, id="no token"),
        pytest.param({"Authorization": "Bearer wrong"}, id="unknown token"),
        pytest.param({"Authorization": "Basic !!!"}, id="basic that is not base64"),
        pytest.param({"Authorization": "Basic dXNlcjpwYXNz"}, id="another user"),
        pytest.param({"Authorization": "Negotiate abc"}, id="unknown scheme"),
    ],
)
@pytest.mark.parametrize("path", ["/api/2.0/serving-endpoints", "/serving-endpoints/sdk-iris/invocations"])
@pytest.mark.usefixtures("iris")
def test_requests_without_valid_credentials_get_401(client: Client, path: str, headers: dict[str, str]):
    answer = httpx.post(f"{client.access.host}{path}", json={"inputs": [1]}, headers=headers)
    client.assert_error(answer, "UNAUTHENTICATED")


def test_start_up_probe_needs_no_credentials(client: Client):
    answer = httpx.get(f"{client.access.host}/.well-known/databricks-config")
    assert answer.status_code == 200, describe(answer)
    assert int(answer.json()["workspace_id"]) >= 0


def test_basic_authentication_as_in_the_documentation_of_curl(client: Client, iris: str):
    """``curl -u token:$DATABRICKS_TOKEN -d …``: basic authentication and curl's default content type."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    body = json.dumps({"dataframe_records": RECORDS})
    url = f"{client.access.host}/serving-endpoints/{iris}/invocations"
    command = [curl, "--silent", "--fail-with-body", "-u", f"token:{client.access.token}", "-d", body, url]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert answer.returncode == 0, f"{answer.stdout}{answer.stderr}"
    assert json.loads(answer.stdout) == {"predictions": [0, 1, 2]}


def test_mlflow_deployments_client(
    client: Client, register: Registered, new_name: Names, monkeypatch: pytest.MonkeyPatch
):
    from mlflow.deployments import get_deploy_client

    monkeypatch.setenv("DATABRICKS_HOST", client.access.host)
    monkeypatch.setenv("DATABRICKS_TOKEN", client.access.token)
    deployments: Any = get_deploy_client("databricks")
    name, version = new_name(), register(zoo.IRIS_CLASSIFIER)

    config = {"served_entities": [served(version).as_dict()]}
    created = deployments.create_endpoint(config={"name": name, "config": config}, route_optimized=None)
    assert created["state"]["config_update"] == "IN_PROGRESS"
    client.await_ready(name)

    answer = deployments.predict(endpoint=name, inputs={"dataframe_records": RECORDS})
    assert answer["predictions"] == [0, 1, 2]
    assert deployments.get_endpoint(name)["state"]["ready"] == "READY"
    assert name in [endpoint["name"] for endpoint in deployments.list_endpoints()]
    deployments.delete_endpoint(name)
    assert name not in [endpoint["name"] for endpoint in deployments.list_endpoints()]
