import json

import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span
from tests.messages import Ask, Other

from servery_common.errors import Conflict
from servery_common.messaging import envelope
from servery_common.messaging.envelope import PART_BYTES, Assembly, UndecodableError


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES + 7])
def test_what_is_split_is_assembled_again(size: int) -> None:
    payload, assembly = bytes(i % 251 for i in range(size)), Assembly()
    pieces = list(envelope.split(payload))
    assert all(len(piece) <= PART_BYTES for _, piece in pieces)
    wholes = [assembly.add(part, piece) for part, piece in pieces]
    assert wholes[:-1] == [None] * (len(pieces) - 1)
    assert wholes[-1] == payload


@pytest.mark.parametrize("part", ["2/3", "x", "1/x", ""])
def test_a_gap_between_parts_is_noticed(part: str) -> None:
    with pytest.raises(UndecodableError):
        Assembly().add(part, b"")


def test_an_event_is_a_cloud_event_in_binary_mode() -> None:
    event = envelope.make_event("servery.events.test.1", Ask(text="x"), "id-1")
    headers = event.headers("servery/test")
    assert headers["ce-specversion"] == "1.0"
    assert headers["ce-id"] == headers["Nats-Msg-Id"] == "id-1"
    assert headers["ce-type"] == "test.ask.v1"
    assert headers["ce-source"] == "servery/test"
    assert json.loads(event.body) == {"text": "x"}


def test_an_event_carries_the_trace_it_was_made_in() -> None:
    context = SpanContext(0xA, 0xB, is_remote=False, trace_flags=TraceFlags(1))
    with use_span(NonRecordingSpan(context)):
        event = envelope.make_event("servery.events.test.1", Ask(text="x"))
    assert event.headers("s")["traceparent"] == f"00-{0xA:032x}-{0xB:016x}-01"


def test_only_expected_types_are_read() -> None:
    payload = envelope.encode(Ask(text="x"))
    assert envelope.decode_one_of([Other, Ask], "test.ask.v1", payload) == Ask(text="x")
    for type_name in ("test.answer.v1", None):
        with pytest.raises(UndecodableError):
            envelope.decode_one_of([Other, Ask], type_name, payload)


def test_unknown_fields_are_ignored_and_missing_ones_are_not() -> None:
    assert envelope.decode(Ask, b'{"text": "x", "new": 1}') == Ask(text="x")
    with pytest.raises(UndecodableError):
        envelope.decode(Ask, b"{}")


def test_an_error_that_cannot_be_read_is_still_an_error() -> None:
    error = envelope.read_error(envelope.error_payload(Conflict("m")))
    assert (type(error), error.message) == (Conflict, "m")
    for payload in (b"", b"[]", b"\xff"):
        assert envelope.read_error(payload).error_code == "INTERNAL_ERROR"


@pytest.mark.parametrize(
    ("subject", "operation"),
    [
        ("servery.api.builder.describe", "builder.describe"),
        ("servery.api.worker.ensure.w1", "worker.ensure"),
        ("servery.signals.worker.heartbeat.w1", "worker.heartbeat"),
        ("servery.events.build.succeeded.b1", "build.succeeded"),
        ("servery.jobs.build.b1", "build"),
    ],
)
def test_operations_have_no_ids(subject: str, operation: str) -> None:
    assert envelope.operation(subject) == operation
