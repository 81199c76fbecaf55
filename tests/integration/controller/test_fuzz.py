"""The management API against its own OpenAPI document: schemathesis makes the calls, good and bad.

Whatever comes in: no fault of the server, only statuses that the document declares, and every error in the
documented shape with a code that stands for its status. The examples are the same on every run.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.integration.controller.conftest import World
from tests.integration.controller.peers import ADMIN, entity

from servery_common.contracts import subjects
from servery_common.contracts.management import HttpAnswer, HttpCall
from servery_controller.api.document import PATH

EXAMPLES = 8
"""Of each kind, for each operation."""
SERVING_ENDPOINTS = "/api/2.0/serving-endpoints"
KNOWN = {
    "entity_name": ["iris", "missing"],
    "entity_version": ["1", "2", "9", "@champion"],
    "model_name": ["iris", "missing"],
    "model_version": ["1", "2", "9"],
}
BASE = "http://servery.invalid"

Send = Callable[[requests.PreparedRequest], schemathesis.Response]


def no_fault_of_the_server(
    context: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """501 is an answer: part of Databricks' API is not offered. Any other 5xx is a fault."""
    assert response.status_code < 500 or response.status_code == 501, response.text


CHECKS = [
    no_fault_of_the_server,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


async def test_no_call_that_the_document_suggests_breaks_the_server(world: World):
    await world.ok("POST", "", {"name": "iris", "config": {"served_entities": [entity()]}})
    await world.settled("iris")
    document = (await call(world, requests.Request("GET", BASE + PATH).prepare())).json()
    seen: Counter[int] = Counter()
    send = sender(world, seen)

    problems = await asyncio.to_thread(lambda: fuzz(with_known_names(document), send))
    assert not problems, "\n\n".join(problems)
    assert {200, 400, 404} <= set(seen), f"the examples got no further than {seen}"
    assert await world.answers()


def with_known_names(document: dict[str, Any]) -> dict[str, Any]:
    """Let the examples speak of what there is: random names would never get past the first look-up."""
    for path, item in document["paths"].items():
        for operation in item.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "name" and path.startswith(SERVING_ENDPOINTS):
                    parameter["schema"]["enum"] = ["iris", "absent"]
    for schema in document["components"]["schemas"].values():
        for name, values in KNOWN.items():
            if name in schema.get("properties", {}):
                schema["properties"][name]["enum"] = values
    return document


def fuzz(document: dict[str, Any], send: Send) -> list[str]:
    """Call every operation with right and with wrong examples; return what was wrong with the answers."""
    schema = schemathesis.openapi.from_dict(document)
    operations = [found.ok() for found in schema.get_all_operations()]
    problems: list[str] = []
    for operation in sorted(operations, key=lambda one: one.method == "delete"):
        for mode in GenerationMode:
            try:
                check(operation, mode, send)
            except (Exception, BaseExceptionGroup) as error:
                problems.append(f"{operation.label}, {mode.value} examples: {error!r}")
    return problems


def check(operation: schemathesis.schemas.APIOperation, mode: GenerationMode, send: Send) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def answers_as_documented(case: schemathesis.Case) -> None:
        request = requests.Request(**as_request(case)).prepare()
        case.validate_response(send(request), checks=CHECKS)

    answers_as_documented()


def as_request(case: schemathesis.Case) -> dict[str, Any]:
    wanted = ("method", "url", "headers", "params", "data", "json", "files", "cookies")
    return {key: value for key, value in case.as_transport_kwargs(base_url=BASE).items() if key in wanted}


def sender(world: World, seen: Counter[int]) -> Send:
    """Carries requests to the controller from another thread, and counts the statuses of the answers."""
    loop = asyncio.get_running_loop()

    def send(request: requests.PreparedRequest) -> schemathesis.Response:
        answer = asyncio.run_coroutine_threadsafe(call(world, request), loop).result(30)
        seen[answer.status_code] += 1
        return answer

    return send


async def call(world: World, request: requests.PreparedRequest) -> schemathesis.Response:
    url = urlsplit(request.url or "")
    body = request.body or b""
    answer = await world.gateway.bus.request(
        subjects.controller_http(),
        HttpCall(
            method=request.method or "GET",
            path=url.path.rstrip("/"),
            query=url.query,
            headers={"content-type": request.headers.get("Content-Type", "application/json")},
            body=body if isinstance(body, str) else body.decode(errors="replace"),
            identity=ADMIN,
            host="http://127.0.0.1:8080",
        ),
        HttpAnswer,
        timeout=20,
    )
    return schemathesis.Response(
        status_code=answer.status,
        headers={name: [value] for name, value in answer.headers.items()},
        content=answer.body.encode(),
        request=request,
        elapsed=0.0,
        verify=True,
    )
