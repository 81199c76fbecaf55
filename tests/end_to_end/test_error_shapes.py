"""Whatever is sent to whatever route: an error is ``{"error_code", "message"}`` with the matching status.

The routes are those of docs/compatibility.yaml, so that page and server cannot drift apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from tests.contract.compatibility import Route, routes
from tests.end_to_end.client import ERROR_STATUS, Client
from tests.models.bodies import JSON

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
NO_ROUTE = "No API found"


class Attempt(NamedTuple):
    """One request that may go wrong."""

    said: str
    method: str
    path: str
    options: dict[str, Any]
    codes: tuple[str, ...] = tuple(ERROR_STATUS)
    must_fail: bool = True


def attempts(access_token: str) -> Iterator[Attempt]:
    """Every listed route, called wrongly in each way that makes sense for it."""
    right = {"Authorization": f"Bearer {access_token}"}
    junk: dict[str, bytes] = {
        "empty": b"",
        "junk": b"\x00{nonsense",
        "array": b"[1]",
        "not UTF-8": b"\xff\xfe",
    }
    known: dict[str, set[str]] = {}
    for route in routes():
        methods = METHODS[:5] if route.named_method == "ANY" else (route.method,)
        known.setdefault(route.filled(), set()).update(methods)
    for route in routes():
        path = route.filled()
        if not route.public:
            wrong = {"Authorization": "Bearer dapi0000"}
            yield Attempt("no token", route.method, path, {}, ("UNAUTHENTICATED",))
            yield Attempt("wrong token", route.method, path, {"headers": wrong}, ("UNAUTHENTICATED",))
        for kind, body in junk.items():
            options = {"headers": {**right, "Content-Type": JSON}, "content": body}
            yield Attempt(f"{kind} body", route.method, path, options, must_fail="{" in route.path)
    for path, served in known.items():
        for method in set(METHODS) - served:
            yield Attempt("wrong method", method, path, {"headers": right})


def test_every_error_has_the_documented_shape(client: Client):
    problems: list[str] = []
    with httpx.Client(base_url=client.access.host, timeout=20) as http:
        for attempt in attempts(client.access.token):
            answer = http.request(attempt.method, attempt.path, **attempt.options)
            problem = complaint(answer, attempt)
            if problem:
                said = f"{attempt.said}: {attempt.method} {attempt.path} → {answer.status_code} {answer.text[:300]}"
                problems.append(f"{problem}: {said}")
            revoke_what_was_made(client, answer)
    assert not problems, "\n".join(problems)


def complaint(answer: httpx.Response, attempt: Attempt) -> str | None:
    """What is wrong with an answer, None for a good one."""
    if answer.is_success:
        return "no error" if attempt.must_fail else None
    if answer.headers.get("content-type", "").split(";")[0] != JSON:
        return "not JSON"
    body = answer.json()
    if attempt.path.startswith("/oidc/"):
        # RFC 6749, section 5.2: this is what OAuth clients read.
        return (
            None if {"error", "error_description"} <= set(body) or "error_code" in body else "no OAuth error"
        )
    if "detail" in body:
        return "FastAPI's own error"
    if ERROR_STATUS.get(body.get("error_code")) != answer.status_code:
        return "code and status do not match"
    if not str(body.get("message", "")).strip():
        return "no message"
    if body["error_code"] not in attempt.codes:
        return f"another code than {attempt.codes}"
    return None


def revoke_what_was_made(client: Client, answer: httpx.Response) -> None:
    """An empty body is a good one for a token: take back what it made."""
    if answer.is_success and answer.url.path == "/api/2.0/token/create":
        token_id = answer.json()["token_info"]["token_id"]
        client.http.post("/api/2.0/token/delete", json={"token_id": token_id}).raise_for_status()


@pytest.mark.parametrize("route", routes(), ids=lambda route: f"{route.named_method} {route.path}")
def test_every_listed_route_is_there(client: Client, route: Route):
    answer = client.http.request(route.method, route.filled())
    assert NO_ROUTE not in answer.text, answer.text
    assert answer.status_code < 500 or answer.status_code == 501, answer.text


@pytest.mark.parametrize(
    "route",
    [route for route in routes() if route.verdict == "refused"],
    ids=lambda route: f"{route.named_method} {route.path}",
)
def test_what_is_not_offered_says_so(client: Client, route: Route):
    answer = client.http.request(route.method, route.filled(), content=json.dumps({}))
    message = client.assert_error(answer, "NOT_IMPLEMENTED")
    assert len(message.split()) > 3, message
