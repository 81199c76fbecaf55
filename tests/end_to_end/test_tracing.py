"""One request is one trace, from the client's own span to the model's predict, across the services."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest
from tests.end_to_end.client import Client, describe, fine
from tests.end_to_end.deadlines import eventually
from tests.end_to_end.otlp_receiver import OtlpReceiver, Span
from tests.end_to_end.stack import SERVICES

SERVER_KIND = 2
STAGES_OF_THE_GATEWAY = ("admit", "queue", "transport")
STAGES_OF_THE_RUNNER = ("decode", "predict", "encode")


@pytest.fixture(scope="module")
def traced(client: Client, receiver: OtlpReceiver, misbehaving: str) -> tuple[str, str, str, list[Span]]:
    """Trace id, id of the client's span, request id and the spans of one request."""
    trace_id, client_span = secrets.token_hex(16), secrets.token_hex(8)
    answer = client.score(
        misbehaving, fine("traced"), headers={"traceparent": f"00-{trace_id}-{client_span}-01"}
    )
    assert answer.status_code == 200, describe(answer)

    def complete() -> list[Span]:
        spans = receiver.trace(trace_id)
        names = {span.name for span in spans}
        missing = {*STAGES_OF_THE_GATEWAY, "serve", *STAGES_OF_THE_RUNNER} - names
        assert not missing, f"missing {missing}, have {names}"
        return spans

    spans = eventually(complete, within=20, what="all spans arrive")
    return trace_id, client_span, answer.headers["x-request-id"], spans


def one(spans: list[Span], name: str) -> Span:
    """The only span of that name."""
    (found,) = [span for span in spans if span.name == name]
    return found


def test_the_gateway_continues_the_trace_of_the_client(traced: tuple[str, str, str, list[Span]]):
    trace_id, client_span, _, spans = traced
    assert {span.trace_id for span in spans} == {trace_id}
    (server,) = [span for span in spans if span.parent_id == client_span]
    assert server.kind == SERVER_KIND
    assert server.service == "servery-gateway"


def test_stages_are_children_of_their_span(traced: tuple[str, str, str, list[Span]]):
    _, client_span, _, spans = traced
    (server,) = [span for span in spans if span.parent_id == client_span]
    for name in STAGES_OF_THE_GATEWAY:
        stage = one(spans, name)
        assert (stage.service, stage.parent_id) == ("servery-gateway", server.span_id), stage
    serve = one(spans, "serve")
    assert (serve.service, serve.parent_id) == ("servery-worker", one(spans, "transport").span_id)
    for name in STAGES_OF_THE_RUNNER:
        stage = one(spans, name)
        assert (stage.service, stage.parent_id) == ("servery-worker", serve.span_id), stage


def test_every_span_has_its_parent_and_lies_within_it(traced: tuple[str, str, str, list[Span]]):
    _, client_span, _, spans = traced
    by_id = {span.span_id: span for span in spans}
    slack_ns = 5_000_000  # two processes read the same clock, but not at the same moment
    for span in spans:
        assert span.start_ns <= span.end_ns, span
        if span.parent_id == client_span:
            continue
        parent = by_id[span.parent_id]
        assert parent.start_ns - slack_ns <= span.start_ns, (parent, span)
        assert span.end_ns <= parent.end_ns + slack_ns, (parent, span)


def test_stages_follow_each_other(traced: tuple[str, str, str, list[Span]]):
    _, _, _, spans = traced
    for stages in (STAGES_OF_THE_GATEWAY, STAGES_OF_THE_RUNNER):
        starts = [one(spans, name).start_ns for name in stages]
        assert starts == sorted(starts)


def test_log_lines_carry_the_ids_of_the_request(
    client: Client, misbehaving: str, traced: tuple[str, str, str, list[Span]]
):
    """A request that fails is logged; its line leads to the trace, and back."""
    trace_id = secrets.token_hex(16)
    answer = client.score(
        misbehaving, fine("exit"), headers={"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
    )
    assert answer.status_code == 400, describe(answer)
    request_id = answer.headers["x-request-id"]

    def logged() -> bool:
        lines = [parsed(line) for service in SERVICES for line in client.stack.logs(service)]
        mine = [line for line in lines if line.get("request_id") == request_id]
        assert mine, "no line with the request id"
        assert all(line["trace_id"] == trace_id for line in mine), mine
        return True

    eventually(logged, within=10, what="the failure is logged")


def parsed(line: str) -> dict[str, Any]:
    """A structured log line; anything else is empty."""
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
