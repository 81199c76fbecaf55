"""Bad management requests are refused with a documented error that says why, and change nothing.

What a body may say wrongly is swept in tests/integration/controller/test_bad_input.py; here is what takes the gateway
or a real registry to go wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest
from mlflow import MlflowClient
from tests.end_to_end.client import ENDPOINTS, Client, Registered, entity, fine
from tests.models import zoo
from tests.models.bodies import JSON


@pytest.fixture(autouse=True)
def nothing_changed(client: Client, misbehaving: str) -> Iterator[None]:
    """After whatever the test did, the endpoint is as it was and answers."""
    before = listed_and_read(client, misbehaving)
    yield
    assert listed_and_read(client, misbehaving) == before
    assert client.predictions(misbehaving, fine("after"))[0]["kind"] == "after"


def listed_and_read(client: Client, name: str) -> tuple[object, object]:
    return client.http.get(ENDPOINTS).json(), client.get(name)


@pytest.fixture(scope="module")
def version(register: Registered) -> str:
    """A registered version of the model ``misbehaves``."""
    return register(zoo.misbehaves())


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


def test_version_that_was_deleted_after_it_was_registered(
    client: Client, register: Registered, misbehaving: str
):
    gone = register(zoo.misbehaves(), variant="to be deleted")
    with zoo.using(client.access.tracking_uri):
        MlflowClient().delete_model_version("misbehaves", gone)
    answer = client.update(misbehaving, [entity("misbehaves", gone)])
    assert gone in client.assert_error(answer, "RESOURCE_DOES_NOT_EXIST")


ODD_NAMES = [
    "a.b",
    "a/b",
    "a%2Fb",
    "..",
    "a>b",
    "a*",
    "$JS.API",
    "a\r\nX-Injected: 1",
    "a b",
    "ü",
    "x" * 5_000,
    "'; --",
]


@pytest.mark.parametrize("name", ODD_NAMES, ids=lambda name: ascii(name)[:20])
@pytest.mark.parametrize("rest", ["", "/config", "/served-models/x/logs", "/served-models/x/build-logs"])
def test_path_with_a_name_no_endpoint_has(client: Client, name: str, rest: str):
    method = "PUT" if rest == "/config" else "GET"
    answer = client.http.request(method, f"{ENDPOINTS}/{quote(name, safe='')}{rest}", content=b"{}")
    codes = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE", "BAD_REQUEST")
    client.assert_error(answer, *codes)
    assert "x-injected" not in answer.headers


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
