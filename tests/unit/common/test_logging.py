import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from servery_common.logging import configure_logging
from servery_common.settings import LogSettings


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_an_event_is_one_json_line_with_its_context(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("test")
    structlog.contextvars.bind_contextvars(request_id="r1")
    with use_span(NonRecordingSpan(SpanContext(0xA, 0xB, False, TraceFlags(1)))):
        structlog.get_logger("x").info("replica_ready", seconds=1.5)
    [line] = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "replica_ready",
        "seconds": 1.5,
        "service": "test",
        "level": "info",
        "request_id": "r1",
        "trace_id": f"{0xA:032x}",
        "span_id": f"{0xB:016x}",
    }


def test_every_line_within_a_span_names_it_whoever_logs(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("test")
    tracer = TracerProvider().get_tracer("test")
    structlog.get_logger("x").info("before")
    with tracer.start_as_current_span("outer") as outer:
        structlog.get_logger("x").info("own")
        with tracer.start_as_current_span("inner") as inner:
            logging.getLogger("asyncpg").warning("a library's")
            structlog.get_logger("x").info("another's", trace_id="of another trace")
    structlog.get_logger("x").info("after")
    before, own, library, other, after = lines(capsys)
    trace_id = f"{outer.get_span_context().trace_id:032x}"
    assert (own["trace_id"], own["span_id"]) == (trace_id, f"{outer.get_span_context().span_id:016x}")
    assert (library["trace_id"], library["span_id"]) == (trace_id, f"{inner.get_span_context().span_id:016x}")
    assert other["trace_id"] == "of another trace"
    assert "span_id" not in other, "it would be one of a trace it does not belong to"
    assert "trace_id" not in {**before, **after}


def test_one_process_of_several_says_which_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("test", process=2)
    logging.getLogger("uvicorn.error").warning("port %d is taken", 80)
    [line] = lines(capsys)
    assert (line["service"], line["process"]) == ("test", 2)


def test_standard_library_loggers_join_in(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("test")
    logging.getLogger("uvicorn.error").warning("port %d is taken", 80)
    [line] = lines(capsys)
    assert (line["event"], line["logger"], line["service"], line["level"]) == (
        "port 80 is taken",
        "uvicorn.error",
        "test",
        "warning",
    )


def test_an_exception_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("test")
    try:
        raise KeyError("k")
    except KeyError:
        structlog.get_logger("x").error("failed", exc_info=True)
    [line] = lines(capsys)
    assert "KeyError: 'k'" in line["exception"]


def test_less_than_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("test", LogSettings(level="warning"))
    structlog.get_logger("x").info("quiet")
    logging.getLogger("y").info("quiet")
    assert lines(capsys) == []


def test_console_output_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("test", LogSettings(format="console"))
    structlog.get_logger("x").info("replica_ready", replica_id="r1")
    output = capsys.readouterr().out
    assert "replica_ready" in output
    assert "replica_id=r1" in output
