"""Managing an endpoint beside its config, with the unmodified databricks-sdk: one test per thing people do."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import (
    BadRequest,
    DatabricksError,
    OperationFailed,
    ResourceConflict,
)
from databricks.sdk.errors import NotImplemented as NotOffered
from databricks.sdk.service.serving import (
    AiGatewayRateLimit,
    AiGatewayRateLimitKey,
    AiGatewayRateLimitRenewalPeriod,
    EmailNotifications,
    EndpointCoreConfigInput,
    EndpointStateConfigUpdate,
    EndpointStateReady,
    EndpointTag,
    RateLimit,
    RateLimitKey,
    RateLimitRenewalPeriod,
    ServedEntityInput,
    ServingModelWorkloadType,
)
from tests.end_to_end.client import ENDPOINTS, Client, Registered, fine
from tests.end_to_end.deadlines import eventually
from tests.models import zoo
from tests.models.estimators import IRIS
from tests.webhook import Webhook

PATIENCE = timedelta(minutes=3)
RECORDS: list[Any] = IRIS.to_dict(orient="records")
Names = Callable[[], str]


@pytest.fixture(scope="module")
def workspace(client: Client) -> WorkspaceClient:
    """The SDK, configured as its documentation says."""
    return WorkspaceClient(host=client.access.host, token=client.access.token)


@pytest.fixture
def bare(workspace: WorkspaceClient, new_name: Names) -> str:
    """An endpoint without a config: enough for what concerns none."""
    name = new_name()
    workspace.serving_endpoints.create(name=name)
    return name


def iris(version: str, **fields: Any) -> EndpointCoreConfigInput:
    """A config that serves one version of the iris classifier."""
    return EndpointCoreConfigInput(name="", served_entities=[served(version, **fields)])


def served(version: str, **fields: Any) -> ServedEntityInput:
    return ServedEntityInput(
        entity_name="iris_classifier",
        entity_version=version,
        workload_size="Small",
        scale_to_zero_enabled=False,
        **fields,
    )


def suspended(workspace: WorkspaceClient, name: str, verb: str) -> dict[str, Any]:
    """Stop or start an endpoint: documented calls that the SDK has no method for."""
    return workspace.api_client.do("POST", f"{ENDPOINTS}/{name}/config:{verb}")  # type: ignore[return-value]


def test_a_stopped_endpoint_answers_400_until_it_is_started_again(
    workspace: WorkspaceClient, register: Registered, new_name: Names
):
    name, endpoints = new_name(), workspace.serving_endpoints
    endpoints.create_and_wait(name=name, config=iris(register(zoo.IRIS_CLASSIFIER)), timeout=PATIENCE)
    with pytest.raises(BadRequest, match="is not stopped"):
        suspended(workspace, name, "start")

    state = suspended(workspace, name, "stop")["state"]
    assert state == {"ready": "NOT_READY", "config_update": "NOT_UPDATING", "suspend": "SUSPENDED"}
    assert suspended(workspace, name, "stop")["state"] == state

    def refusal() -> str | None:
        try:
            endpoints.query(name, dataframe_records=RECORDS)
        except BadRequest as refused:
            return str(refused)
        return None  # the gateway hears of the stop a moment later

    assert "is stopped" in eventually(refusal, within=10, what="the gateway refuses")

    assert suspended(workspace, name, "start")["state"]["config_update"] == "IN_PROGRESS"
    with pytest.raises(ResourceConflict):
        suspended(workspace, name, "stop")
    started = endpoints.wait_get_serving_endpoint_not_updating(name, timeout=PATIENCE)
    assert started.state is not None
    assert started.state.ready is EndpointStateReady.READY
    assert started.config is not None
    assert started.config.config_version == 2
    assert endpoints.query(name, dataframe_records=RECORDS).predictions == [0, 1, 2]


def test_requests_in_flight_at_a_stop_are_answered(
    client: Client, workspace: WorkspaceClient, register: Registered, new_name: Names
):
    name = new_name()
    client.deploy(name, "misbehaves", register(zoo.misbehaves()))

    def score_until_stopped(_: int) -> list[httpx.Response]:
        answers: list[httpx.Response] = []
        while not answers or answers[-1].status_code == 200:
            answers.append(client.score(name, fine("sleep:0.5")))
        return answers

    with ThreadPoolExecutor(4) as threads:
        sent = [threads.submit(score_until_stopped, i) for i in range(4)]
        eventually(lambda: client.score(name, fine("fine")).status_code == 200, within=30, what="load runs")
        suspended(workspace, name, "stop")
        answers = [answer for future in sent for answer in future.result()]
    last = [answer for answer in answers if answer.status_code != 200]
    assert len(last) < len(answers)
    for answer in last:
        assert "is stopped" in client.assert_error(answer, "BAD_REQUEST")


def test_tags_are_changed_with_patch(workspace: WorkspaceClient, bare: str):
    endpoints = workspace.serving_endpoints
    added = endpoints.patch(bare, add_tags=[EndpointTag("team", "flowers"), EndpointTag("flag")])
    assert [(tag.key, tag.value) for tag in added.tags or []] == [("team", "flowers"), ("flag", "")]
    left = endpoints.patch(bare, add_tags=[EndpointTag("team", "trees")], delete_tags=["flag"])
    assert [(tag.key, tag.value) for tag in left.tags or []] == [("team", "trees")]
    assert endpoints.get(bare).tags == left.tags
    with pytest.raises(BadRequest, match="127 bytes"):
        endpoints.patch(bare, add_tags=[EndpointTag("k" * 10_240, "v")])


def test_rate_limits_are_answered_in_the_older_and_the_newer_form(workspace: WorkspaceClient, bare: str):
    endpoints = workspace.serving_endpoints
    older = RateLimit(calls=100, renewal_period=RateLimitRenewalPeriod.MINUTE, key=RateLimitKey.USER)
    assert endpoints.put(bare, rate_limits=[older]).rate_limits == [older]
    newer = AiGatewayRateLimit(
        calls=7, renewal_period=AiGatewayRateLimitRenewalPeriod.MINUTE, key=AiGatewayRateLimitKey.ENDPOINT
    )
    assert endpoints.put_ai_gateway(bare, rate_limits=[newer]).rate_limits == [newer]
    gateway = endpoints.get(bare).ai_gateway
    assert gateway is not None
    assert gateway.rate_limits == [newer]
    with pytest.raises(BadRequest, match="two limits"):
        endpoints.put(bare, rate_limits=[older, older])


def test_a_call_beyond_the_rate_limit_is_refused_with_the_time_to_wait(
    client: Client, workspace: WorkspaceClient, register: Registered, new_name: Names
):
    deployed, endpoints = new_name(), workspace.serving_endpoints
    client.deploy(deployed, "misbehaves", register(zoo.misbehaves()))
    endpoints.put(deployed, rate_limits=[RateLimit(calls=2, renewal_period=RateLimitRenewalPeriod.MINUTE)])
    answers = eventually(lambda: _until_refused(client, deployed), within=30, what="a call is refused")
    assert {answer.status_code for answer in answers[:-1]} <= {200}
    assert client.assert_error(answers[-1], "REQUEST_LIMIT_EXCEEDED")
    # Calls are counted by the second: the one that the first call came in has to be over for a minute.
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 61
    endpoints.put(deployed, rate_limits=[])
    eventually(
        lambda: client.score(deployed, fine()).status_code == 200, within=30, what="the limit is lifted"
    )


def _until_refused(client: Client, name: str) -> list[httpx.Response] | None:
    """Score until a call is refused; None when gateways have not heard of a limit yet."""
    answers: list[httpx.Response] = []
    while len(answers) < 5:
        answers.append(client.score(name, fine()))
        if answers[-1].status_code != 200:
            return answers
    return None


def test_the_webhook_is_told_of_success_and_of_failure(
    workspace: WorkspaceClient, register: Registered, new_name: Names, webhook: Webhook
):
    name, endpoints = new_name(), workspace.serving_endpoints
    asked = EmailNotifications(on_update_success=["ann@example.com"], on_update_failure=["ops@example.com"])
    assert endpoints.create(name=name, email_notifications=asked).response.email_notifications == asked

    def told(event: str) -> dict[str, Any]:
        return eventually(
            lambda: next((t for t in webhook.taken if (t["endpoint"], t["event"]) == (name, event)), None),
            within=30,
            what=f"{event} is told",
        )

    version = register(zoo.IRIS_CLASSIFIER)
    endpoints.update_config_and_wait(name, served_entities=[served(version)], timeout=PATIENCE)
    assert told("endpoint.update_succeeded")["recipients"] == ["ann@example.com"]

    package = "servery-no-such-package==1.2.3"
    bad = register(
        zoo.misbehaves("3", pip_requirements=[*zoo.requirements(), package]), variant="missing package"
    )
    wrong = ServedEntityInput(
        entity_name="misbehaves", entity_version=bad, workload_size="Small", scale_to_zero_enabled=False
    )
    with pytest.raises(OperationFailed):
        endpoints.update_config_and_wait(name, served_entities=[wrong], timeout=PATIENCE)
    failed = told("endpoint.update_failed")
    assert failed["recipients"] == ["ops@example.com"]
    assert "servery-no-such-package" in failed["message"]
    assert failed["config_version"] == 2

    nobody = endpoints.update_notifications(name, email_notifications=EmailNotifications())
    assert nobody.name == name
    assert nobody.email_notifications is not None
    assert not nobody.email_notifications.on_update_failure
    with pytest.raises(BadRequest, match="not an e-mail address"):
        endpoints.update_notifications(
            name, email_notifications=EmailNotifications(on_update_failure=["ops"])
        )


def test_events_tell_what_happened_newest_first(
    workspace: WorkspaceClient, register: Registered, new_name: Names
):
    name = new_name()
    config = iris(register(zoo.IRIS_CLASSIFIER))
    workspace.serving_endpoints.create_and_wait(name=name, config=config, timeout=PATIENCE)
    answer: Any = workspace.api_client.do("GET", f"{ENDPOINTS}/{name}/events")
    events = answer["events"]
    assert events[-1]["event_type"] == "ENDPOINT_CREATION_EVENT"
    assert (events[0]["event_type"], events[0]["status"]) == ("ENDPOINT_UPDATE_EVENT", "SUCCEEDED")
    built = [each for each in events if each["event_type"] == "SERVED_ENTITY_CONTAINER_EVENT"]
    assert [each["message"] for each in built] == ["Container image creation finished successfully."]
    assert all(isinstance(each["timestamp"], int) for each in events)


def test_a_canceled_update_ends_and_leaves_the_active_config(
    workspace: WorkspaceClient, register: Registered, new_name: Names
):
    name, endpoints = new_name(), workspace.serving_endpoints
    version = register(zoo.IRIS_CLASSIFIER)
    endpoints.create_and_wait(name=name, config=iris(version), timeout=PATIENCE)
    endpoints.update_config(name, served_entities=[served(version, name="again")])
    workspace.api_client.do("POST", f"{ENDPOINTS}/{name}/config:cancel")
    state = endpoints.get(name).state
    assert state is not None
    assert state.config_update is EndpointStateConfigUpdate.UPDATE_CANCELED
    assert endpoints.query(name, dataframe_records=RECORDS).served_model_name == f"iris_classifier-{version}"


def test_build_logs_of_a_version_are_read_with_a_body_as_the_documentation_shows(
    client: Client, workspace: WorkspaceClient, register: Registered, new_name: Names
):
    name, version = new_name(), register(zoo.IRIS_CLASSIFIER)
    workspace.serving_endpoints.create_and_wait(name=name, config=iris(version), timeout=PATIENCE)
    path = f"{ENDPOINTS}/{name}/served-models/iris_classifier-{version}/build-logs"
    answer = client.http.request("GET", path, json={"config_version": 1})
    assert answer.status_code == 200
    assert answer.json()["logs"].strip()
    assert client.http.request("GET", path, json={"config_version": 9}).status_code == 404


def test_every_route_takes_a_trailing_slash(client: Client, bare: str):
    for path in ("", f"/{bare}", f"/{bare}/events"):
        assert client.http.get(f"{ENDPOINTS}{path}/").status_code == 200
    assert client.http.patch(f"{ENDPOINTS}/{bare}/tags/", json={}).json() == {"tags": []}


def test_what_is_not_offered_is_not_implemented_and_not_missing(workspace: WorkspaceClient, bare: str):
    endpoints = workspace.serving_endpoints
    gpu = served("1", workload_type=ServingModelWorkloadType.GPU_SMALL)
    with pytest.raises(NotOffered, match="CPU"):
        endpoints.update_config(bare, served_entities=[gpu])
    with pytest.raises(NotOffered, match="telemetry"):
        endpoints.patch_telemetry_config(bare)
    calls: tuple[tuple[str, str], ...] = (
        ("POST", f"{ENDPOINTS}/pt"),
        ("PUT", f"{ENDPOINTS}/pt/{bare}/config"),
        ("POST", "/api/2.0/external-function"),
    )
    for method, path in calls:
        with pytest.raises(DatabricksError) as refused:
            workspace.api_client.do(method, path, body={})
        assert refused.value.error_code == "NOT_IMPLEMENTED"
