from structlog.testing import capture_logs

from servery_common.errors import BadRequest, Unavailable
from servery_gateway.failure_log import LINES_PER_SECOND, FailureLog


def note(failures: FailureLog, error: Exception = Unavailable("gone")) -> None:  # noqa: B008
    failures.note(error, endpoint="iris", request_id="r1", trace_id="t1")


def test_a_failure_is_found_by_request_and_trace_id():
    with capture_logs() as lines:
        note(FailureLog(lambda: 0.0))
    assert [(line["event"], line["request_id"], line["trace_id"]) for line in lines] == [
        ("request_failed", "r1", "t1")
    ]


def test_a_mistake_of_the_caller_is_not_logged():
    with capture_logs() as lines:
        note(FailureLog(lambda: 0.0), BadRequest("no"))
    assert lines == []


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
