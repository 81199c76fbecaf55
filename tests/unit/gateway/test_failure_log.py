from structlog.testing import capture_logs

from servery_gateway.failure_log import LINES_PER_SECOND, FailureLog


def note(failures: FailureLog, status: int = 503) -> None:
    failures.note(status, "gone", endpoint="iris", request_id="r1", trace_id="t1")


def test_a_failure_is_found_by_request_and_trace_id():
    with capture_logs() as lines:
        note(FailureLog(lambda: 0.0))
    (line,) = lines
    assert (line["event"], line["request_id"], line["trace_id"]) == ("request_failed", "r1", "t1")


def test_the_platforms_failures_are_warnings_and_the_callers_are_not():
    failures = FailureLog(lambda: 0.0)
    with capture_logs() as lines:
        for status in (400, 429, 500, 503):
            note(failures, status)
    assert [line["log_level"] for line in lines] == ["info", "info", "warning", "warning"]


def test_a_flood_is_cut_and_counted():
    now = 0.0
    failures = FailureLog(lambda: now)
    with capture_logs() as lines:
        for _ in range(LINES_PER_SECOND + 7):
            note(failures)
        now = 1.0
        note(failures)
    assert len(lines) == LINES_PER_SECOND + 2
    assert [line["count"] for line in lines if line["event"] == "requests_failed_unlogged"] == [7]
