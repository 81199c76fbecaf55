"""Management calls: carried to a controller the test plays, and the real clients' first steps."""

import asyncio
import json
import time

from databricks.sdk import WorkspaceClient
from mlflow.deployments import get_deploy_client
from tests.integration.gateway.conftest import AT_ONCE, TOKEN, World
from tests.integration.gateway.peers import endpoint, entity

from servery_common.contracts import subjects
from servery_common.contracts.management import HttpAnswer, HttpCall
from servery_common.errors import Conflict


async def play_controller(world: World) -> list[HttpCall]:
    calls: list[HttpCall] = []

    async def answer(call: HttpCall) -> HttpAnswer:
        calls.append(call)
        if call.path.endswith("/config"):
            raise Conflict("An update is in progress.")
        return HttpAnswer(
            status=200,
            headers={"content-type": "application/json", "set-cookie": "no", "retry-after": "1\r\nx: y"},
            body=json.dumps({"endpoints": [], "echo": call.body}),
        )

    await world.bus.serve(subjects.controller_http(), HttpCall, answer, queue=subjects.CONTROLLER_QUEUE)
    return calls


async def test_without_a_controller_the_answer_is_503_at_once(patient_world: World) -> None:
    world = patient_world
    began = time.monotonic()
    answer = await world.http.get("/api/2.0/serving-endpoints")
    assert (answer.status_code, answer.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert answer.headers["retry-after"] == "1"
    assert time.monotonic() - began < AT_ONCE


async def test_a_call_and_its_answer_are_carried(world: World) -> None:
    calls = await play_controller(world)
    answer = await world.http.post(
        "/api/2.0/serving-endpoints/?a=1&b=%20",
        content='{"name": "é"}'.encode(),
        headers={
            "content-type": "application/json",
            "x-request-id": "r-1",
            "cookie": "c",
            "idempotency-key": "k",
        },
    )
    assert answer.status_code == 200
    assert answer.json()["echo"] == '{"name": "é"}'
    assert answer.headers["x-request-id"] == "r-1"
    assert "set-cookie" not in answer.headers
    assert answer.headers["retry-after"] == "1??x: y"
    (call,) = calls
    assert (call.method, call.path, call.query) == ("POST", "/api/2.0/serving-endpoints", "a=1&b=%20")
    assert (call.identity.user_name, call.identity.workspace_id) == ("ann", "7")
    assert call.host == f"http://127.0.0.1:{world.gateway.port}"
    assert call.headers["content-type"] == "application/json"
    assert call.headers.keys() == {"content-type", "accept", "x-request-id"}
    conflict = await world.http.put("/api/2.0/serving-endpoints/x/config", content=b"{}")
    assert (conflict.status_code, conflict.json()["error_code"]) == (409, "RESOURCE_CONFLICT")


async def test_calls_that_must_not_reach_the_controller_do_not(world: World) -> None:
    calls = await play_controller(world)
    path = "/api/2.0/serving-endpoints"
    too_long = await world.http.post(path, content=b"x" * (1024 * 1024 + 1))
    assert (too_long.status_code, too_long.json()["error_code"]) == (400, "BAD_REQUEST")
    assert (await world.http.post(path, content=b"\xff")).status_code == 400
    assert (await world.http.request("TRACE", path)).status_code == 400
    assert (await world.http.get(path, headers={"authorization": "Bearer no"})).status_code == 401
    assert calls == []


async def test_the_unmodified_clients_work(world: World, monkeypatch) -> None:
    calls = await play_controller(world)

    async def model(work):
        return 200, b'{"predictions": [1.5]}'

    replica = await world.replica("sdk", model)
    await world.publish(endpoint("sdk", entity("m-1", replica.route())))
    host = f"http://127.0.0.1:{world.gateway.port}"

    def databricks_sdk():
        client = WorkspaceClient(host=host, token=TOKEN)
        answer = client.serving_endpoints.query("sdk", dataframe_records=[{"a": 1}])
        assert list(client.serving_endpoints.list()) == []
        return answer.predictions, answer.served_model_name

    def mlflow_client():
        monkeypatch.setenv("DATABRICKS_HOST", host)
        monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
        client = get_deploy_client("databricks")
        assert client.list_endpoints() == []
        return client.predict(endpoint="sdk", inputs={"inputs": [1]})["predictions"]

    assert await asyncio.to_thread(databricks_sdk) == ([1.5], "m-1")
    assert await asyncio.to_thread(mlflow_client) == [1.5]
    assert {call.path for call in calls} == {"/api/2.0/serving-endpoints"}
