"""Bad scoring requests are refused with a documented error that says why, and the next request works."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import requests
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors.platform import BadRequest
from tests.end_to_end.client import ENDPOINTS, Client, describe, fine
from tests.end_to_end.deadlines import eventually
from tests.models import zoo
from tests.models.bodies import JSON, Body, json_body, malformed

LIMIT = 16 * 1024 * 1024
"""Longest request body in bytes."""

TAKEN_AS_GIVEN = {
    "extra_top_level_key",
    "unknown_params",
    "params_is_list",
    "json_with_charset",
    "content_type_form",
    "content_type_missing",
}
"""Odd bodies that are scored all the same."""

BROKEN = [body for body in malformed(zoo.NUMBERS) if body.name not in TAKEN_AS_GIVEN]


@pytest.fixture(autouse=True)
def next_request_works(client: Client, misbehaving: str) -> Iterator[None]:
    """After whatever the test did, the endpoint answers."""
    yield
    assert client.predictions(misbehaving, fine("after"))[0]["kind"] == "after"


def padded(size: int) -> bytes:
    """A valid body of exactly ``size`` bytes: JSON allows any white space at its end."""
    content = fine().content
    return content + b" " * (size - len(content))


def test_unknown_endpoint(client: Client):
    answer = client.score("no-such-endpoint", fine())
    assert client.assert_error(answer, "ENDPOINT_NOT_FOUND") == (
        "The given endpoint does not exist, please retry after checking the specified model and version "
        "deployment exists."
    )


def test_unknown_served_model(client: Client, misbehaving: str):
    path = f"/serving-endpoints/{misbehaving}/served-models/no-such-model/invocations"
    answer = client.http.post(path, json={"inputs": [1]})
    client.assert_error(answer, "ENDPOINT_NOT_FOUND", "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize("body", BROKEN, ids=lambda body: body.name)
def test_malformed_body(client: Client, misbehaving: str, body: Body):
    client.assert_error(client.score(misbehaving, body), "BAD_REQUEST", "INVALID_PARAMETER_VALUE")


def test_schema_mismatch_names_the_missing_column(client: Client, misbehaving: str):
    answer = client.score(misbehaving, json_body("", {"dataframe_records": [{"other": 1}]}))
    message = client.assert_error(answer, "INVALID_PARAMETER_VALUE")
    assert "Model is missing inputs ['kind']" in message


def test_model_that_raises_is_told_apart_from_the_platform(client: Client, misbehaving: str):
    answer = client.score(misbehaving, fine("raise"))
    message = client.assert_error(answer, "BAD_REQUEST")
    assert "unexpected error while evaluating the model" in message
    assert "ValueError: the model does not like this row" in answer.json()["stack_trace"]


def test_model_that_ends_its_process_is_replaced(client: Client, misbehaving: str):
    before = client.predictions(misbehaving, fine())[0]["pid"]
    # The model's own doing, and it would do it again: no client may retry this.
    message = client.assert_error(client.score(misbehaving, fine("exit")), "BAD_REQUEST")
    assert "exited with status" in message

    def replaced() -> bool:
        answer = client.score(misbehaving, fine())
        assert answer.status_code == 200, describe(answer)
        return answer.json()["predictions"][0]["pid"] != before

    eventually(replaced, within=20, what="the process is replaced")


def test_body_of_the_longest_size_is_taken(client: Client, misbehaving: str):
    answer = client.score(misbehaving, Body("longest", padded(LIMIT)))
    assert answer.status_code == 200, describe(answer)


def test_body_one_byte_too_long(client: Client, misbehaving: str):
    answer = client.score(misbehaving, Body("too_long", padded(LIMIT + 1)))
    assert "16" in client.assert_error(answer, "BAD_REQUEST")


def test_chunked_body_one_byte_too_long(client: Client, misbehaving: str):
    """Without a Content-Length the size is known only from reading."""
    content = padded(LIMIT + 1)
    pieces = (content[at : at + 65536] for at in range(0, len(content), 65536))
    answer = client.http.post(
        f"/serving-endpoints/{misbehaving}/invocations", content=pieces, headers={"Content-Type": JSON}
    )
    assert answer.request.headers["Transfer-Encoding"] == "chunked"
    client.assert_error(answer, "BAD_REQUEST")


def test_real_client_uploads_a_body_that_is_too_long_only_once(
    client: Client, misbehaving: str, monkeypatch: pytest.MonkeyPatch
):
    """Some statuses make the clients upload it all again and again."""
    uploads: list[str] = []
    send = requests.Session.send

    def counting(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> Any:
        if request.url and request.url.endswith("/invocations"):
            uploads.append(request.url)
        return send(self, request, **options)

    monkeypatch.setattr(requests.Session, "send", counting)
    workspace = WorkspaceClient(host=client.access.host, token=client.access.token)
    with pytest.raises(BadRequest):
        workspace.serving_endpoints.query(misbehaving, dataframe_records=[{"kind": "x" * LIMIT}])
    assert len(uploads) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/serving-endpoints/{name}/invocations"),
        ("PUT", "/serving-endpoints/{name}/invocations"),
        ("POST", "/serving-endpoints/{name}/nonsense"),
        ("GET", "/nonsense"),
        ("GET", "/api/2.0/nonsense"),
        ("PATCH", ENDPOINTS + "/{name}"),
    ],
)
def test_unknown_paths_and_methods(client: Client, misbehaving: str, method: str, path: str):
    answer = client.http.request(method, path.format(name=misbehaving))
    client.assert_error(answer, "ENDPOINT_NOT_FOUND", "NOT_FOUND", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST")


def test_good_and_bad_rows_at_once_get_their_own_answers(client: Client, misbehaving: str):
    """Requests that arrive together may be run together; a bad one fails alone."""
    kinds = ["raise" if number % 3 == 0 else f"n{number}" for number in range(30)]
    with ThreadPoolExecutor(10) as threads:
        answers: list[httpx.Response] = list(
            threads.map(lambda kind: client.score(misbehaving, fine(kind)), kinds)
        )
    for kind, answer in zip(kinds, answers, strict=True):
        if kind == "raise":
            client.assert_error(answer, "BAD_REQUEST")
        else:
            assert answer.status_code == 200, describe(answer)
            assert [row["kind"] for row in answer.json()["predictions"]] == [kind]
