"""Metrics and OpenAPI documents, asked for with the unmodified SDK and read by other people's readers."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import BadRequest, NotFound
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from tests.end_to_end.client import ENDPOINTS, Client, Registered, entity, fine
from tests.end_to_end.deadlines import eventually
from tests.end_to_end.stack import free_port
from tests.models import zoo
from tests.models.bodies import json_body

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
DESCRIBED = (
    "iris_classifier",
    "passengers",
    "tensor_regressor",
    "repeat_text",
    "next_day",
    "optional_columns",
    "nested_types",
    "lightgbm_classifier",
    "echo_chat",
)
"""Models of the zoo with a signature and an input example, one for each kind of signature."""


@pytest.fixture(scope="module")
def workspace(client: Client) -> WorkspaceClient:
    return WorkspaceClient(host=client.access.host, token=client.access.token)


@pytest.fixture(scope="module")
def described(client: Client, register: Registered) -> Iterator[str]:
    """An endpoint that serves all models with a description."""
    name = "e2e-described"
    models = [model for model in zoo.ZOO if model.name in DESCRIBED]
    entities = [entity(model.name, register(model), name=model.name) for model in models]
    routes = [
        {"served_model_name": model.name, "traffic_percentage": 100 if at == 0 else 0}
        for at, model in enumerate(models)
    ]
    answer = client.create(name, entities, traffic_config={"routes": routes})
    assert answer.status_code == 200, answer.text
    client.await_ready(name)
    yield name
    client.delete(name)


def scraped(workspace: WorkspaceClient, endpoint: str) -> dict[str, float]:
    """All series of an endpoint, summed over their labels, as the SDK's users read them."""
    answer = workspace.serving_endpoints.export_metrics(endpoint)
    assert answer.contents is not None
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.contents.read().decode()):
        for sample in family.samples:
            assert sample.labels["endpoint_name"] == endpoint
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def openapi(workspace: WorkspaceClient, endpoint: str) -> dict[str, Any]:
    answer = workspace.serving_endpoints.get_open_api(endpoint)
    assert answer.contents is not None
    return json.loads(answer.contents.read())


def test_requests_are_counted_by_what_the_client_was_answered(
    client: Client, workspace: WorkspaceClient, misbehaving: str
) -> None:
    def counted() -> dict[str, float] | None:
        series = scraped(workspace, misbehaving)
        done = series["request_count_total"] == 5 and series["request_4xx_count_total"] == 2
        return series if done else None

    for kind in ("fine", "fine", "fine", "raise"):
        client.score(misbehaving, fine(kind))
    client.score(misbehaving, json_body("no_column", {"dataframe_records": [{"other": 1}]}))
    series = eventually(counted, within=30, what="all five requests are counted")
    assert series["request_5xx_count_total"] == 0
    assert series["request_latency_ms_count"] == 5
    assert series["request_latency_ms_sum"] > 0
    assert series["model_queue_time_ms_count"] == 5
    # The request that does not fit the signature reaches the model's process, not its predict.
    assert 4 <= series["model_prediction_latency_ms_count"] <= 5
    assert series["provisioned_concurrent_requests_total"] == 4


def test_use_of_processor_and_memory_is_told_for_each_replica(
    workspace: WorkspaceClient, misbehaving: str
) -> None:
    def measured() -> dict[str, float] | None:
        series = scraped(workspace, misbehaving)
        return series if series["mem_usage_percentage"] > 0 else None

    series = eventually(measured, within=30, what="the memory of the replica is told")
    assert series["mem_usage_percentage"] < 100
    assert 0 <= series["cpu_usage_percentage"] <= 100


def test_who_asks_for_openmetrics_gets_it(client: Client, misbehaving: str) -> None:
    path = f"{ENDPOINTS}/{misbehaving}/metrics"
    plain = client.http.get(path, headers={"Accept": "text/plain"})
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    answer = client.http.get(path, headers={"Accept": OPENMETRICS})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in openmetrics.text_string_to_metric_families(answer.text)}
    assert {"request_latency_ms", "request_count_total", "cpu_usage_percentage"} <= names


def test_an_endpoint_without_data_answers_zeros(client: Client, workspace: WorkspaceClient) -> None:
    name = "e2e-no-config"
    assert client.http.post(ENDPOINTS, json={"name": name}).status_code == 200
    try:
        assert scraped(workspace, name)["request_count_total"] == 0
    finally:
        client.delete(name)


def test_metrics_and_openapi_of_no_endpoint_are_not_found(workspace: WorkspaceClient) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        workspace.serving_endpoints.export_metrics("nobody")
    with pytest.raises(NotFound, match="does not exist"):
        workspace.serving_endpoints.get_open_api("nobody")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian package prometheus)")
def test_promtool_finds_no_fault_that_is_ours_in_the_metrics(client: Client, misbehaving: str) -> None:
    text = client.http.get(f"{ENDPOINTS}/{misbehaving}/metrics").text
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
    # Names are Databricks': gauges with "_total" and milliseconds are against promtool's taste, not its grammar.
    assert "error while linting" not in checked.stderr, checked.stderr
    taste = ('should not have "_total" suffix', "use base unit", "should not contain abbreviated units")
    complaints = [line for line in checked.stderr.splitlines() if not any(one in line for one in taste)]
    assert complaints == []


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus (Debian package prometheus)")
@pytest.mark.parametrize("scheme", ["bearer", "basic"])
def test_a_prometheus_server_scrapes_an_endpoint(
    client: Client, misbehaving: str, tmp_path: Path, scheme: str
) -> None:
    address = httpx.URL(client.access.host)
    credentials = {
        "bearer": {"authorization": {"type": "Bearer", "credentials": client.access.token}},
        "basic": {"basic_auth": {"username": "token", "password": client.access.token}},
    }
    scrape = {
        "job_name": "servery",
        "scrape_interval": "1s",
        "scheme": address.scheme,
        "metrics_path": f"{ENDPOINTS}/{misbehaving}/metrics",
        **credentials[scheme],
        "static_configs": [{"targets": [f"{address.host}:{address.port}"]}],
    }
    config = tmp_path / "prometheus.yml"
    config.write_text(json.dumps({"scrape_configs": [scrape]}))
    web = f"127.0.0.1:{free_port()}"
    arguments = [
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address={web}",
    ]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(["prometheus", *arguments], stdout=log, stderr=log)
    try:

        def stored() -> list[Any] | None:
            query = {"query": f'provisioned_concurrent_requests_total{{endpoint_name="{misbehaving}"}}'}
            try:
                answer = httpx.get(f"http://{web}/api/v1/query", params=query)
            except httpx.TransportError:
                return None
            if answer.status_code != 200:  # it still reads its log
                return None
            return answer.json()["data"]["result"] or None

        (series,) = eventually(stored, within=60, what="Prometheus stores what it scraped")
        assert series["value"][1] == "4"
    finally:
        server.terminate()
        server.wait()


def test_the_document_is_openapi_and_names_every_served_model(
    client: Client, workspace: WorkspaceClient, described: str
) -> None:
    document = openapi(workspace, described)
    validate(document)
    assert document["openapi"] == "3.1.0"
    assert document["info"]["title"] == described
    assert document["servers"] == [{"url": f"{client.access.host}/serving-endpoints/{described}"}]
    assert set(document["paths"]) == {f"/served-models/{name}/invocations" for name in DESCRIBED}


@pytest.mark.parametrize("model", DESCRIBED)
def test_the_example_fits_its_schema_and_scores(
    client: Client, workspace: WorkspaceClient, described: str, model: str
) -> None:
    document = openapi(workspace, described)
    path = f"/served-models/{model}/invocations"
    operation = document["paths"][path]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    (example,) = [named["value"] for named in content["examples"].values()]
    Draft202012Validator(content["schema"]).validate(example)
    answer = client.http.post(document["servers"][0]["url"] + path, json=example)
    assert answer.status_code == 200, answer.text
    ok = operation["responses"]["200"]["content"]["application/json"]["schema"]
    Draft202012Validator(ok).validate(answer.json())


def test_a_model_without_a_signature_is_refused_with_what_to_do(
    client: Client, workspace: WorkspaceClient, register: Registered
) -> None:
    name = "e2e-no-signature"
    (model,) = [model for model in zoo.ZOO if model.name == "describe_input"]
    client.deploy(name, model.name, register(model))
    try:
        with pytest.raises(BadRequest, match="signature"):
            workspace.serving_endpoints.get_open_api(name)
    finally:
        client.delete(name)


def test_an_endpoint_that_is_not_ready_has_no_document(client: Client, workspace: WorkspaceClient) -> None:
    name = "e2e-not-ready"
    assert client.http.post(ENDPOINTS, json={"name": name}).status_code == 200
    try:
        with pytest.raises(BadRequest, match="not ready"):
            workspace.serving_endpoints.get_open_api(name)
    finally:
        client.delete(name)
