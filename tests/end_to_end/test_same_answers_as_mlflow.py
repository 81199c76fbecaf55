"""Whatever is sent to whatever model, Servery answers what ``mlflow models serve`` answers.

Each model of the zoo is deployed to an endpoint and, from the very same registered files, served by
MLflow's own scoring server; each body goes to both. Where the two differ on purpose, ``expected_from`` says
how and why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.end_to_end.client import Client, Registered, describe, entity
from tests.end_to_end.mlflow_servers import ReferenceServers
from tests.models import zoo
from tests.models.bodies import FORM, JSON, Body, json_body
from tests.models.zoo import IRIS_CLASSIFIER, ZOO, ZooModel


@dataclass(frozen=True)
class Expected:
    """What Servery should answer."""

    status: int
    predictions: str | None = None
    """The exact body of a successful answer."""
    error_code: str | None = None
    message: str | None = None
    """None: there is no text of MLflow's to compare with."""
    exception: str | None = None
    """Last line of the stack trace."""


def expected_from(answer: httpx.Response) -> Expected:
    """What Servery should answer where MLflow's server gave ``answer``.

    Predictions are the same bytes. Errors keep status, code and text, except that

    * a 5xx of MLflow becomes 400 BAD_REQUEST: what MLflow reports as a server error is the model's or its
      caller's doing here, and the real clients would send the request again after a 5xx;
    * MLflow's plain-text errors become JSON, as the real clients need it: 415 is 400 BAD_REQUEST with the
      same text, and a bare "Internal Server Error" is 400 BAD_REQUEST with a text of Servery's own.
    """
    if answer.status_code == 200:
        return Expected(200, predictions=answer.text)
    if answer.headers["content-type"].startswith("text/plain"):
        has_text = answer.status_code == 415
        return Expected(400, error_code="BAD_REQUEST", message=answer.text if has_text else None)
    error = answer.json()
    fault_of_server = answer.status_code >= 500
    return Expected(
        status=400 if fault_of_server else answer.status_code,
        error_code="BAD_REQUEST" if fault_of_server else error["error_code"],
        message=comparable(error["message"]),
        exception=last_line(error.get("stack_trace")),
    )


def seen_in(answer: httpx.Response, expected: Expected) -> Expected:
    """Servery's answer in the same terms, leaving out what ``expected`` has no opinion on."""
    if answer.status_code == 200:
        return Expected(200, predictions=answer.text)
    error = answer.json()
    silent = expected.message is None
    return Expected(
        status=answer.status_code,
        error_code=error["error_code"],
        message=None if silent else comparable(error["message"]),
        exception=None if silent else last_line(error.get("stack_trace")),
    )


def comparable(message: str) -> str:
    """The message with the items of printed sets sorted: each Python process prints them in its own order."""
    return re.sub(
        r"\{'\w+'(?:, '\w+')+\}",
        lambda found: "{" + ", ".join(sorted(found[0][1:-1].split(", "))) + "}",
        message,
    )


def last_line(stack_trace: str | None) -> str | None:
    """The exception itself. The lines above name files and line numbers of the server that caught it."""
    return stack_trace.strip().splitlines()[-1] if stack_trace else None


def for_mlflow(body: Body) -> Body:
    """The body as MLflow needs it: Servery takes no content type, and curl's default one, for JSON."""
    return Body(body.name, body.content, JSON) if body.content_type in (None, FORM) else body


@pytest.fixture(scope="module")
def reference(
    client: Client, register: Registered, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ReferenceServers]:
    """All models deployed in parallel, and beside them served by MLflow."""
    import mlflow.artifacts

    versions = {model.name: register(model) for model in ZOO}
    for model in ZOO:
        answer = client.create(endpoint_of(model), [entity(model.name, versions[model.name])])
        assert answer.status_code == 200, describe(answer)
    directory = tmp_path_factory.mktemp("reference")
    with zoo.using(client.access.tracking_uri):
        paths = {
            name: Path(
                mlflow.artifacts.download_artifacts(
                    f"models:/{name}/{version}", dst_path=str(directory / name)
                )
            )
            for name, version in versions.items()
        }
    servers = ReferenceServers(paths, directory / "log")
    try:
        for model in ZOO:
            client.await_ready(endpoint_of(model))
        servers.await_ready()
        yield servers
    finally:
        servers.close()
        for model in ZOO:
            client.delete(endpoint_of(model))


def endpoint_of(model: ZooModel) -> str:
    """The name of the model's endpoint."""
    return f"zoo-{model.name}"


@pytest.mark.parametrize(
    ("model", "body"),
    [pytest.param(model, body, id=f"{model.name}-{body.name}") for model in ZOO for body in model.bodies],
)
def test_answers_like_mlflow(client: Client, reference: ReferenceServers, model: ZooModel, body: Body):
    theirs = reference.score(model.name, for_mlflow(body))
    ours = client.score(endpoint_of(model), body)
    expected = expected_from(theirs)
    assert ours.headers["content-type"] == "application/json"
    assert seen_in(ours, expected) == expected, (
        f"MLflow: {theirs.status_code} {theirs.text[:2000]}\nServery: {describe(ours)}"
    )


def test_reference_is_what_the_command_serves(reference: ReferenceServers):
    """The servers compared with above are forked; ``mlflow models serve`` itself gives the same answers."""
    with reference.by_command(IRIS_CLASSIFIER.name) as served:
        for body in IRIS_CLASSIFIER.bodies:
            by_command, by_fork = served(body), reference.score(IRIS_CLASSIFIER.name, body)
            assert expected_from(by_command) == expected_from(by_fork), body


UNWRAPPED = [model for model in ZOO if model.unwrapped]
OWN_KEYS = {"client_request_id": "a-1", "usage_context": {"k": "v"}, "databricks_options": {"x": True}}


@pytest.mark.parametrize("model", UNWRAPPED, ids=lambda model: model.name)
def test_databricks_own_keys_change_no_answer(client: Client, reference: ReferenceServers, model: ZooModel):
    """MLflow would hand them to the model as its input."""
    plain = json.loads(model.sample.content)
    ours = client.score(endpoint_of(model), json_body("own_keys", {**plain, **OWN_KEYS}))
    assert ours.text == reference.score(model.name, model.sample).text


@pytest.mark.parametrize("model", ZOO, ids=lambda model: model.name)
def test_sample_is_predicted(client: Client, reference: ReferenceServers, model: ZooModel):
    """Guards the comparison: two servers that both refuse everything would agree as well."""
    answer = client.score(endpoint_of(model), model.sample)
    assert answer.status_code == 200, describe(answer)
    assert ("predictions" in json.loads(answer.text)) is not model.unwrapped
    assert answer.headers["served-model-name"]
