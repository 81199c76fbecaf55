"""The REST API as the tests speak it: plain HTTP, so that nothing is hidden by a client library."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import httpx
from tests.end_to_end.deadlines import eventually
from tests.end_to_end.stack import Stack
from tests.models import zoo
from tests.models.bodies import Body, json_body
from tests.models.zoo import ZooModel

Registered = Callable[..., str]
"""Called with a model, optionally a ``name`` to register it as and a ``variant``; returns the version."""

ENDPOINTS = "/api/2.0/serving-endpoints"

ERROR_STATUS = {
    "BAD_REQUEST": 400,
    "INVALID_PARAMETER_VALUE": 400,
    "RESOURCE_ALREADY_EXISTS": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "ENDPOINT_NOT_FOUND": 404,
    "NOT_FOUND": 404,
    "RESOURCE_DOES_NOT_EXIST": 404,
    "RESOURCE_CONFLICT": 409,
    "REQUEST_LIMIT_EXCEEDED": 429,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL_ERROR": 500,
    "NOT_IMPLEMENTED": 501,
    "TEMPORARILY_UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""The error codes that the real clients understand, and the status each must come with."""

DEPLOY_SECONDS = 180
HANG_GUARD = 5.0
"""Seconds after which an error answer counts as hanging. Says nothing about speed."""


def fine(kind: str = "fine") -> Body:
    """A body for the model ``misbehaves``."""
    return json_body(kind, {"dataframe_records": [{"kind": kind}]})


class Client:
    """HTTP calls to one stack as its administrator."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.access = stack.access
        self.http = httpx.Client(
            base_url=self.access.host,
            headers={"Authorization": f"Bearer {self.access.token}"},
            timeout=70,
            limits=httpx.Limits(max_connections=64),
        )

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def score(self, endpoint: str, body: Body, **options: Any) -> httpx.Response:
        """POST a body to an endpoint, with its content type or none."""
        headers = {"Content-Type": body.content_type} if body.content_type else {}
        headers |= options.pop("headers", {})
        path = f"/serving-endpoints/{endpoint}/invocations"
        return self.http.post(path, content=body.content, headers=headers, **options)

    def predictions(self, endpoint: str, body: Body) -> Any:
        """The predictions for a body that must be answered with 200."""
        answer = self.score(endpoint, body)
        assert answer.status_code == 200, describe(answer)
        return answer.json()["predictions"]

    def create(self, name: str, entities: Iterable[dict[str, Any]], **config: Any) -> httpx.Response:
        """Ask for an endpoint; does not wait."""
        return self.http.post(
            ENDPOINTS, json={"name": name, "config": {"served_entities": list(entities), **config}}
        )

    def update(self, name: str, entities: Iterable[dict[str, Any]], **config: Any) -> httpx.Response:
        """Ask for another config; does not wait."""
        return self.http.put(f"{ENDPOINTS}/{name}/config", json={"served_entities": list(entities), **config})

    def get(self, name: str) -> dict[str, Any]:
        """The endpoint as the API describes it."""
        answer = self.http.get(f"{ENDPOINTS}/{name}")
        assert answer.status_code == 200, describe(answer)
        return answer.json()

    def deploy(self, name: str, model: str, version: str, **options: Any) -> None:
        """Create an endpoint for one model version and wait until it serves."""
        answer = self.create(name, [entity(model, version, **options)])
        assert answer.status_code == 200, describe(answer)
        self.await_ready(name)

    def await_ready(self, name: str) -> dict[str, Any]:
        """Wait until the newest config serves; a failed update fails the test at once."""
        described = self.await_settled(name)
        state = (described["state"]["ready"], described["state"]["config_update"])
        assert state == ("READY", "NOT_UPDATING"), f"{described}\n{self.build_logs(described)}"
        return described

    def await_settled(self, name: str) -> dict[str, Any]:
        """Wait until no update is in progress, whatever came of it."""

        def settled() -> dict[str, Any] | None:
            described = self.get(name)
            assert described["state"]["config_update"] != "IN_PROGRESS", described
            return described

        return eventually(settled, within=DEPLOY_SECONDS, what=f"update of {name} ends")

    def delete(self, name: str) -> None:
        """Delete an endpoint; it may already be gone."""
        answer = self.http.delete(f"{ENDPOINTS}/{name}")
        assert answer.status_code in (200, 404), describe(answer)

    def unsettled(self) -> str:
        """The endpoints whose newest config does not serve, with their build logs, for failure messages."""
        listed = self.http.get(ENDPOINTS).json().get("endpoints", [])
        bad = [each["name"] for each in listed if each["state"]["config_update"] != "NOT_UPDATING"]
        described = [self.get(name) for name in bad]
        return "\n".join(f"{each}\n{self.build_logs(each)}" for each in described)

    def build_logs(self, described: dict[str, Any]) -> str:
        """The build logs of an endpoint's served entities, for failure messages."""
        config = described.get("pending_config") or described.get("config") or {}
        texts: list[str] = []
        for served in config.get("served_entities", []):
            path = f"{ENDPOINTS}/{described['name']}/served-models/{served['name']}/build-logs"
            answer = self.http.get(path, params={"config_version": config.get("config_version", 1)})
            texts.append(f"--- build of {served['name']}: {answer.status_code}\n{answer.text[-3000:]}")
        return "\n".join(texts)

    def assert_error(self, answer: httpx.Response, *codes: str, guard: float = HANG_GUARD) -> str:
        """Assert a documented error with one of ``codes`` and its status; return the message."""
        problem = describe(answer)
        assert answer.headers["content-type"].split(";")[0] == "application/json", problem
        body = answer.json()
        assert body["error_code"] in codes, problem
        assert answer.status_code == ERROR_STATUS[body["error_code"]], problem
        assert body["message"].strip(), problem
        assert answer.elapsed.total_seconds() < guard, f"took {answer.elapsed}\n{problem}"
        return body["message"]


def entity(model: str, version: str, **options: Any) -> dict[str, Any]:
    """A served entity of an endpoint's config."""
    return {
        "entity_name": model,
        "entity_version": version,
        "workload_size": "Small",
        "scale_to_zero_enabled": False,
        **options,
    }


def describe(answer: httpx.Response) -> str:
    """A request and its answer, shortened. The logs of the services are added to every failed test."""
    return f"{answer.request.method} {answer.request.url} → {answer.status_code} {answer.text[:2000]}"


def registrar(client: Client) -> Registered:
    """A function that registers a model with the client's stack, once per model and variant."""
    versions: dict[tuple[str, str], str] = {}

    def register(model: ZooModel, *, name: str | None = None, variant: str = "") -> str:
        key = (name or model.name, variant)
        if key not in versions:
            versions[key] = zoo.log(model, client.access.tracking_uri, name)
        return versions[key]

    return register
