"""Who may call: every way to prove it that the clients know, and every way in which it can be wrong."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator

import httpx
import pytest
from tests.end_to_end.client import ENDPOINTS, Client, describe
from tests.end_to_end.deadlines import eventually

Ask = Callable[[str], httpx.Response]


@pytest.fixture(scope="module")
def token(client: Client) -> Iterator[str]:
    """A personal access token of the administrator."""
    made = create_token(client, lifetime_seconds=600)
    yield made["token_value"]
    revoke(client, made)


def create_token(client: Client, **options: int) -> dict[str, str]:
    answer = client.http.post("/api/2.0/token/create", json={"comment": "test", **options})
    assert answer.status_code == 200, describe(answer)
    return {"token_value": answer.json()["token_value"], "token_id": answer.json()["token_info"]["token_id"]}


def revoke(client: Client, made: dict[str, str]) -> None:
    answer = client.http.post("/api/2.0/token/delete", json={"token_id": made["token_id"]})
    assert answer.status_code == 200, describe(answer)


def bearer(client: Client, token: str) -> httpx.Response:
    return httpx.get(f"{client.access.host}{ENDPOINTS}", headers={"Authorization": f"Bearer {token}"})


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no header"),
        pytest.param({"Authorization": "Bearer"}, id="no token"),
        pytest.param({"Authorization": "Bearer wrong"}, id="unknown token"),
        pytest.param({"Authorization": "Basic !!!"}, id="basic that is not base64"),
        pytest.param({"Authorization": "Basic dXNlcjpwYXNz"}, id="another user"),
        pytest.param({"Authorization": "Negotiate abc"}, id="unknown scheme"),
        pytest.param({"Authorization": "Bearer e30.e30.e30"}, id="three parts that are no JWT"),
    ],
)
@pytest.mark.parametrize("path", [ENDPOINTS, "/serving-endpoints/anything/invocations"])
def test_requests_without_valid_credentials_get_401(client: Client, path: str, headers: dict[str, str]):
    answer = httpx.post(f"{client.access.host}{path}", json={"inputs": [1]}, headers=headers)
    client.assert_error(answer, "UNAUTHENTICATED")


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda token: token[:-1], id="truncated"),
        pytest.param(lambda token: token[4:], id="without its prefix"),
        pytest.param(lambda token: token + "0", id="one character too many"),
        pytest.param(lambda token: token.upper(), id="upper case"),
        pytest.param(lambda token: token[:4] + token[:3:-1], id="backwards"),
        pytest.param(lambda token: "dapi" + "0" * 32, id="of another installation"),
        pytest.param(lambda token: base64.b64encode(token.encode()).decode(), id="encoded"),
    ],
)
def test_a_token_that_is_nearly_right_is_wrong(client: Client, token: str, spoil: Callable[[str], str]):
    assert bearer(client, token).status_code == 200
    client.assert_error(bearer(client, spoil(token)), "UNAUTHENTICATED")


def test_a_revoked_token_ends(client: Client):
    made = create_token(client)
    assert bearer(client, made["token_value"]).status_code == 200
    revoke(client, made)
    refused(client, made["token_value"])


def test_an_expired_token_ends(client: Client):
    made = create_token(client, lifetime_seconds=1)
    refused(client, made["token_value"])
    listed = client.http.get("/api/2.0/token/list").json().get("token_infos", [])
    if made["token_id"] in [info["token_id"] for info in listed]:
        revoke(client, made)


def refused(client: Client, token: str) -> None:
    """Wait until a token that ended is refused."""

    def look() -> bool:
        answer = bearer(client, token)
        assert not answer.is_success
        client.assert_error(answer, "UNAUTHENTICATED")
        return True

    eventually(look, within=10, what="the token is refused")


def test_the_start_up_probe_needs_no_credentials(client: Client):
    answer = httpx.get(f"{client.access.host}/.well-known/databricks-config")
    assert answer.status_code == 200, describe(answer)
    assert answer.json()["oidc_endpoint"] == f"{client.access.host}/oidc"
