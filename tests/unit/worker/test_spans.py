import pytest

from servery_worker.spans import sampled, trace_id

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    ("traceparent", "expected"),
    [
        (f"00-{TRACE}-b7ad6b7169203331-01", True),
        (f"00-{TRACE}-b7ad6b7169203331-03", True),
        (f"00-{TRACE}-b7ad6b7169203331-00", False),
        ("", False),
        ("01", False),
        ("nonsense", False),
    ],
)
def test_only_a_sampled_trace_is_recorded(traceparent: str, expected: bool):
    assert sampled(traceparent) is expected


def test_the_trace_is_named_in_logs():
    assert trace_id(f"00-{TRACE}-b7ad6b7169203331-01") == TRACE
    assert trace_id("") == ""
