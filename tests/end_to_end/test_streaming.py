"""Answers are streamed from the model to unmodified clients: mlflow's, and any that reads server-sent events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.end_to_end.client import Client, Registered, describe
from tests.end_to_end.deadlines import eventually
from tests.models import zoo
from tests.models.bodies import json_body
from tests.models.zoo import ZooModel

TALKERS = (zoo.COMPLETIONS, zoo.CHAT_MODEL, zoo.CHAT_AGENT, zoo.RESPONSES_AGENT, zoo.EMBEDDINGS)
SLOTS = 4
"""Of a Small served entity."""


@pytest.fixture(scope="module", autouse=True)
def endpoints(client: Client, register: Registered) -> Iterator[None]:
    """An endpoint of each model that talks, named after it."""
    for model in TALKERS:
        answer = client.create(
            name_of(model), [{"entity_name": model.name, "entity_version": register(model)}]
        )
        assert answer.status_code == 200, describe(answer)
    for model in TALKERS:
        client.await_ready(name_of(model))
    yield
    for model in TALKERS:
        client.delete(name_of(model))


@pytest.fixture
def deployments(client: Client, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's client, configured as its documentation says."""
    from mlflow.deployments import get_deploy_client

    monkeypatch.setenv("DATABRICKS_HOST", client.access.host)
    monkeypatch.setenv("DATABRICKS_TOKEN", client.access.token)
    return get_deploy_client("databricks")


def name_of(model: ZooModel) -> str:
    return f"talks-{model.name.replace('_', '-')}"


COMPLETIONS = name_of(zoo.COMPLETIONS)


def stream(client: Client, prompt: str) -> Any:
    """A streamed answer, open for reading."""
    return client.http.stream(
        "POST", f"/serving-endpoints/{COMPLETIONS}/invocations", json={"prompt": prompt, "stream": True}
    )


def test_mlflows_client_streams_a_chat_model(deployments: Any):
    inputs = {"messages": [{"role": "user", "content": "one two"}], "temperature": 0.5}
    chunks = list(deployments.predict_stream(endpoint=name_of(zoo.CHAT_MODEL), inputs=inputs))
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["ONE", "TWO"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


def test_mlflows_client_streams_a_chat_agent(deployments: Any):
    inputs = {"messages": [{"role": "user", "content": "one two"}]}
    chunks = list(deployments.predict_stream(endpoint=name_of(zoo.CHAT_AGENT), inputs=inputs))
    assert [chunk["delta"]["content"] for chunk in chunks] == ["one", "two"]


def test_mlflows_client_streams_a_responses_agent(deployments: Any):
    inputs = {"input": [{"role": "user", "content": "one two"}]}
    events = list(deployments.predict_stream(endpoint=name_of(zoo.RESPONSES_AGENT), inputs=inputs))
    assert [event["type"] for event in events] == [
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_item.done",
    ]


def test_the_answer_is_server_sent_events_in_chunks(client: Client):
    with stream(client, "count:3") as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.headers["served-model-name"].startswith("completions-")
        lines = [line for line in answer.iter_lines() if line]
    assert [json.loads(line.removeprefix("data: ")) for line in lines[:-1]] == [
        {"text": "count 0"},
        {"text": "count 1"},
        {"text": "count 2"},
    ]
    assert lines[-1] == "data: [DONE]"


def test_items_arrive_while_the_model_still_works(client: Client):
    with stream(client, "endless") as answer:
        items = (line for line in answer.iter_lines() if line)
        assert [json.loads(next(items).removeprefix("data: "))["text"][0] for _ in range(5)]


def test_a_client_that_leaves_frees_the_slot(client: Client):
    for _ in range(3 * SLOTS):
        with stream(client, "endless") as answer:
            assert next(answer.iter_lines())
    eventually(lambda: completes(client), within=20, what="a slot is free again")


def completes(client: Client) -> bool:
    answer = client.score(COMPLETIONS, json_body("hi", {"prompt": "hi"}))
    assert answer.status_code == 200, describe(answer)
    return True


def test_a_model_that_cannot_stream_says_what_to_do(client: Client):
    answer = client.score(name_of(zoo.EMBEDDINGS), json_body("x", {"input": "hi", "stream": True}))
    assert "Send the request without" in client.assert_error(answer, "BAD_REQUEST")


def test_an_error_before_the_first_item_is_an_ordinary_error(client: Client, deployments: Any):
    answer = client.score(COMPLETIONS, json_body("x", {"prompt": "refuse", "stream": True}))
    assert "the model refuses this prompt" in client.assert_error(answer, "INVALID_PARAMETER_VALUE")
    with pytest.raises(Exception, match="the model refuses this prompt"):
        list(deployments.predict_stream(endpoint=COMPLETIONS, inputs={"prompt": "refuse"}))


@pytest.mark.parametrize("prompt", ["fail", "exit"])
def test_an_answer_that_breaks_off_never_looks_complete(client: Client, prompt: str):
    lines: list[str] = []
    with stream(client, prompt) as answer, pytest.raises(httpx.RemoteProtocolError):
        lines.extend(line for line in answer.iter_lines() if line)
    # httpx hands out the lines before the break and raises at it.
    assert answer.status_code == 200
    assert "data: [DONE]" not in lines
    eventually(lambda: completes(client), within=30, what="the model works again")


def test_mlflows_client_sees_the_error_and_the_break(deployments: Any):
    chunks: list[Any] = []
    with pytest.raises(Exception, match=r"(?i)prematurely|incomplete"):
        chunks.extend(deployments.predict_stream(endpoint=COMPLETIONS, inputs={"prompt": "fail"}))


def test_the_error_is_the_last_event(client: Client):
    pieces: list[bytes] = []
    with stream(client, "fail") as answer, pytest.raises(httpx.RemoteProtocolError):
        pieces.extend(answer.iter_raw())
    last = b"".join(pieces).decode().strip().splitlines()[-1]
    error = json.loads(last.removeprefix("data: "))["error"]
    assert error["error_code"] == "BAD_REQUEST"
    assert "the model lost its thread" in error["stack_trace"]
