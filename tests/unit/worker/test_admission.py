import pytest

from servery_worker.admission import Capacity, refusal

FREE = Capacity(draining=False, runnable=True, in_flight=3, slots=4)


@pytest.mark.parametrize(
    ("capacity", "ttl_ms", "reason"),
    [
        (FREE, 1000, None),
        (FREE, 0, "expired"),
        (FREE, -5, "expired"),
        (FREE._replace(in_flight=4), 1000, "busy"),
        (FREE._replace(runnable=False), 1000, "busy"),
        (FREE._replace(draining=True), 1000, "draining"),
        (FREE._replace(draining=True, in_flight=4), 0, "draining"),
    ],
)
def test_a_request_is_taken_only_when_it_can_still_be_answered(
    capacity: Capacity, ttl_ms: float, reason: str | None
):
    assert refusal(capacity, ttl_ms, stale=False) == reason


def test_a_request_that_another_replica_has_by_now_is_not_taken():
    assert refusal(FREE, 1000, stale=True) == "expired"
