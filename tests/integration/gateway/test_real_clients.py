"""What the unmodified clients make of hard cases: each request reaches the gateway, and the model, exactly once."""

import asyncio
import json
from typing import Any

import pytest
import requests
from databricks.sdk import WorkspaceClient
from databricks.sdk.config import Config
from databricks.sdk.errors import BadRequest, DatabricksError
from databricks.sdk.errors.platform import DeadlineExceeded
from mlflow.deployments import get_deploy_client
from tests.integration.gateway.conftest import TOKEN, World, eventually
from tests.integration.gateway.peers import FakeReplica, Work, endpoint, entity, said

Posts = list[str]


@pytest.fixture
def posts(monkeypatch: pytest.MonkeyPatch) -> Posts:
    """The URLs that were posted to, in order: both clients send through ``requests``."""
    seen: Posts = []
    send = requests.adapters.HTTPAdapter.send

    def counting(adapter: Any, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        if request.method == "POST":
            seen.append(str(request.url))
        return send(adapter, request, **options)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", counting)
    return seen


def host(world: World) -> str:
    return f"http://127.0.0.1:{world.gateway.port}"


async def query(world: World, inputs: list[Any], **config: Any) -> None:
    """Ask with the SDK, in a thread of its own: making its client already calls the gateway."""

    def ask() -> None:
        client = WorkspaceClient(config=Config(host=host(world), token=TOKEN, **config))
        client.serving_endpoints.query("e", inputs=inputs)

    await asyncio.to_thread(ask)


async def serving(world: World, model, **fields) -> FakeReplica:
    replica = await world.replica("r1", model)
    await world.publish(endpoint("e", entity("m-1", replica.route()), **fields))
    return replica


async def test_the_sdk_hears_of_a_timeout_before_its_own_so_the_model_runs_once(
    world: World, posts: Posts
) -> None:
    async def too_slow(work: Work) -> tuple[int, bytes]:
        await asyncio.sleep(30)
        return 200, b"{}"

    replica = await serving(world, too_slow, timeout_seconds=2.0)
    with pytest.raises(DeadlineExceeded):
        await query(world, [1], http_timeout_seconds=2)
    assert len(posts) == len(replica.ran) == 1
    await eventually(lambda: len(replica.cancels) == 1)


async def test_a_phrase_the_sdk_retries_on_does_not_make_it_run_a_model_again(
    world: World, posts: Posts
) -> None:
    async def fails(work: Work) -> tuple[int, bytes]:
        return 400, said("Unexpected error in layer 3", "BAD_REQUEST")

    replica = await serving(world, fails)
    with pytest.raises(BadRequest, match="unexpected error in layer 3"):
        await query(world, [1])
    assert len(posts) == len(replica.ran) == 1


LIMIT = 16 * 1024 * 1024


def one_byte_too_long() -> list[str]:
    empty = len(json.dumps({"inputs": [""]}))
    return ["x" * (LIMIT + 1 - empty)]


async def test_the_sdk_uploads_a_body_that_is_too_long_once(world: World, posts: Posts) -> None:
    replica = await serving(world, echo_length)
    with pytest.raises(BadRequest, match="16 MB"):
        await query(world, one_byte_too_long())
    assert len(posts) == 1
    assert replica.ran == []


async def test_mlflows_client_uploads_a_body_that_is_too_long_once(
    world: World, posts: Posts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", host(world))
    monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
    replica = await serving(world, echo_length)
    client: Any = get_deploy_client("databricks")
    inputs = {"inputs": one_byte_too_long()}
    with pytest.raises((requests.HTTPError, DatabricksError), match="16 MB"):
        await asyncio.to_thread(client.predict, endpoint="e", inputs=inputs)
    assert len(posts) == 1
    assert replica.ran == []


async def echo_length(work: Work) -> tuple[int, bytes]:
    return 200, json.dumps({"predictions": len(work.body)}).encode()
