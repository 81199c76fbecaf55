"""Ten models behind one endpoint: traffic is split as configured, and each can be addressed directly."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from tests.end_to_end.client import Client, Registered, describe, entity, fine
from tests.models import zoo
from tests.models.bodies import Body

ENDPOINT = "many-models"
SHARES = {f"m{number}": share for number, share in enumerate((40, 20, 10, 10, 5, 5, 4, 3, 2, 1))}
CALLS = 2000


@pytest.fixture(scope="module", autouse=True)
def endpoint(client: Client, register: Registered) -> Iterator[None]:
    """One endpoint with ten served entities that share an environment; each answers with its name."""
    entities = [
        entity("misbehaves", register(zoo.misbehaves(name), variant=name), name=name) for name in SHARES
    ]
    routes = [{"served_model_name": name, "traffic_percentage": share} for name, share in SHARES.items()]
    answer = client.create(ENDPOINT, entities, traffic_config={"routes": routes})
    assert answer.status_code == 200, describe(answer)
    client.await_ready(ENDPOINT)
    yield
    client.delete(ENDPOINT)


def score(client: Client, body: Body, served: str | None = None) -> httpx.Response:
    place = f"/served-models/{served}" if served else ""
    return client.http.post(
        f"/serving-endpoints/{ENDPOINT}{place}/invocations",
        content=body.content,
        headers={"Content-Type": "application/json"},
    )


def test_traffic_is_split_as_configured(client: Client):
    def one(_: int) -> tuple[str, str]:
        answer = score(client, fine())
        assert answer.status_code == 200, describe(answer)
        return answer.headers["served-model-name"], answer.json()["predictions"][0]["version"]

    with ThreadPoolExecutor(8) as threads:
        seen = list(threads.map(one, range(CALLS)))
    assert all(said == ran for said, ran in seen)
    counts = Counter(said for said, _ in seen)
    off = {name: counts[name] / CALLS - share / 100 for name, share in SHARES.items()}
    assert max(map(abs, off.values())) < 0.02, off


@pytest.mark.parametrize("served", SHARES)
def test_each_served_model_can_be_addressed_directly(client: Client, served: str):
    answer = score(client, fine(), served)
    assert answer.status_code == 200, describe(answer)
    assert answer.headers["served-model-name"] == served
    assert answer.json()["predictions"][0]["version"] == served


def test_the_served_model_is_named_on_errors_too(client: Client):
    for body in (fine("raise"), Body("not_json", b"{")):
        answer = score(client, body, "m3")
        client.assert_error(answer, "BAD_REQUEST")
        assert answer.headers["served-model-name"] == "m3"
        assert score(client, body).headers["served-model-name"] in SHARES


def test_a_served_model_that_does_not_exist_is_not_found(client: Client):
    answer = score(client, Body("x", json.dumps({"inputs": [1]}).encode()), "nobody")
    assert "nobody" in client.assert_error(answer, "NOT_FOUND", "RESOURCE_DOES_NOT_EXIST")
