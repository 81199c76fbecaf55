"""Inference parameters reach the model, whatever client sends them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from databricks.sdk import WorkspaceClient
from tests.end_to_end.client import Client, Registered
from tests.models import zoo
from tests.models.bodies import json_body

BODY: dict[str, Any] = {"dataframe_records": [{"text": "hi"}], "params": {"times": 2, "separator": "-"}}
ENDPOINT = "with-params"


@pytest.fixture(scope="module", autouse=True)
def endpoint(client: Client, register: Registered) -> Iterator[None]:
    """An endpoint of a model with parameters of every kind."""
    (model,) = (model for model in zoo.ZOO if model.name == "repeat_text")
    client.deploy(ENDPOINT, model.name, register(model))
    yield
    client.delete(ENDPOINT)


def test_plain_http(client: Client):
    assert client.predictions(ENDPOINT, json_body("params", BODY)) == ["hi-hi."]


def test_mlflows_client(client: Client, monkeypatch: pytest.MonkeyPatch):
    from mlflow.deployments import get_deploy_client

    monkeypatch.setenv("DATABRICKS_HOST", client.access.host)
    monkeypatch.setenv("DATABRICKS_TOKEN", client.access.token)
    deployments: Any = get_deploy_client("databricks")
    assert deployments.predict(endpoint=ENDPOINT, inputs=BODY)["predictions"] == ["hi-hi."]


def test_the_sdk(client: Client):
    """Its ``query`` has no argument for them; its API client sends any body."""
    workspace = WorkspaceClient(host=client.access.host, token=client.access.token)
    path = f"/serving-endpoints/{ENDPOINT}/invocations"
    answer: Any = workspace.api_client.do("POST", path, body=BODY)
    assert answer["predictions"] == ["hi-hi."]
