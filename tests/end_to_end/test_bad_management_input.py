"""Bad management requests are refused with a documented error that says why, and change nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.end_to_end.client import ENDPOINTS, Client, Registered, entity, fine
from tests.models import zoo
from tests.models.bodies import JSON


@pytest.fixture(autouse=True)
def nothing_changed(client: Client, misbehaving: str) -> Iterator[None]:
    """After whatever the test did, the endpoint is as it was and answers."""
    before = client.get(misbehaving)
    yield
    assert client.get(misbehaving) == before
    assert client.predictions(misbehaving, fine("after"))[0]["kind"] == "after"


@pytest.fixture(scope="module")
def version(register: Registered) -> str:
    """A registered version of the model ``misbehaves``."""
    return register(zoo.misbehaves())


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a" * 64,
        "has space",
        "slash/inside",
        "dot.ted",
        "\u00fcnicode",
        "databricks-mine",
        "a*",
        7,
        None,
    ],
    ids=repr,
)
def test_bad_endpoint_name(client: Client, version: str, name: Any):
    client.assert_error(
        client.create(name, [entity("misbehaves", version)]), "INVALID_PARAMETER_VALUE", "BAD_REQUEST"
    )


def test_name_of_an_existing_endpoint(client: Client, misbehaving: str, version: str):
    answer = client.create(misbehaving, [entity("misbehaves", version)])
    assert misbehaving in client.assert_error(answer, "RESOURCE_ALREADY_EXISTS")


@pytest.mark.parametrize(
    ("model", "version", "said"),
    [
        ("no_such_model", "1", "no_such_model"),
        ("misbehaves", "999999", "999999"),
        ("misbehaves", "not-a-number", "not-a-number"),
        ("", "1", ""),
    ],
)
@pytest.mark.usefixtures("version")
def test_model_or_version_that_does_not_exist(
    client: Client, new_name: Callable[[], str], model: str, version: str, said: str
):
    answer = client.create(new_name(), [entity(model, version)])
    codes = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "BAD_REQUEST")
    assert said in client.assert_error(answer, *codes)


def bad_configs(version: str) -> dict[str, dict[str, Any]]:
    """Configs each of which is wrong in one respect."""
    good = entity("misbehaves", version)
    two = [{**good, "name": "one"}, {**good, "name": "two"}]
    older = {"model_name": "misbehaves", "model_version": version, "workload_size": "Small"}

    def routes(**shares: object) -> dict[str, Any]:
        listed = [{"served_model_name": name, "traffic_percentage": share} for name, share in shares.items()]
        return {"traffic_config": {"routes": listed}}

    return {
        "no entities": {"served_entities": []},
        "too little traffic": {"served_entities": two, **routes(one=50, two=49)},
        "too much traffic": {"served_entities": two, **routes(one=60, two=60)},
        "negative traffic": {"served_entities": two, **routes(one=-10, two=110)},
        "fraction of a percent": {"served_entities": two, **routes(one=50.5, two=49.5)},
        "route to nobody": {"served_entities": two, **routes(one=50, three=50)},
        "two entities without routes": {"served_entities": two},
        "same name twice": {"served_entities": [two[0], two[0]], **routes(one=100)},
        "unknown size": {"served_entities": [{**good, "workload_size": "Gigantic"}]},
        "unknown type": {"served_entities": [{**good, "workload_type": "QUANTUM"}]},
        "size and concurrency": {
            "served_entities": [{**good, "min_provisioned_concurrency": 4, "max_provisioned_concurrency": 8}]
        },
        "scale to zero is text": {"served_entities": [{**good, "scale_to_zero_enabled": "perhaps"}]},
        "variables are a list": {"served_entities": [{**good, "environment_vars": ["A=1"]}]},
        "both families": {
            "served_entities": [good],
            "served_models": [{**older, "scale_to_zero_enabled": False}],
        },
        "older family without scale to zero": {"served_models": [older]},
        "entities are an object": {"served_entities": good},
        "entity is text": {"served_entities": ["misbehaves"]},
    }


@pytest.mark.parametrize("wrong", bad_configs("1"))
@pytest.mark.parametrize("verb", ["create", "update"])
def test_bad_config(
    client: Client, misbehaving: str, version: str, new_name: Callable[[], str], verb: str, wrong: str
):
    config = bad_configs(version)[wrong]
    if verb == "create":
        answer = client.http.post(ENDPOINTS, json={"name": new_name(), "config": config})
    else:
        answer = client.http.put(f"{ENDPOINTS}/{misbehaving}/config", json=config)
    client.assert_error(answer, "INVALID_PARAMETER_VALUE", "BAD_REQUEST")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'"text"', id="text"),
        pytest.param(bytes([0xFF, 0xFE]), id="not utf-8"),
        pytest.param(json.dumps({"name": "x" * 100_000}).encode(), id="long name"),
    ],
)
def test_body_that_makes_no_sense(client: Client, content: bytes):
    answer = client.http.post(ENDPOINTS, content=content, headers={"Content-Type": JSON})
    client.assert_error(answer, "BAD_REQUEST", "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_unknown_endpoint(client: Client, method: str):
    answer = client.http.request(method, f"{ENDPOINTS}/no-such-endpoint")
    client.assert_error(answer, "RESOURCE_DOES_NOT_EXIST")


def test_update_of_an_unknown_endpoint(client: Client, version: str):
    answer = client.update("no-such-endpoint", [entity("misbehaves", version)])
    client.assert_error(answer, "RESOURCE_DOES_NOT_EXIST")
