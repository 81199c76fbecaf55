import pytest

from servery_common import errors
from servery_common.contracts.routes import EndpointRoute
from servery_common.errors import ServeryError
from servery_gateway.rejections import NO_ENDPOINT, ROUNDS, Rejections, reason_of
from servery_gateway.routing_table import Change


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.Unauthenticated("x"), "unauthenticated"),
        (errors.PermissionDenied("x"), "permission"),
        (errors.EndpointNotFound("x"), "not_found"),
        (errors.BadRequest("x"), "bad_request"),
        (errors.BadRequest("x", reason="not_serving"), "not_serving"),
        (errors.RequestLimitExceeded("x"), "rate_limit"),
        (errors.RequestLimitExceeded("x", reason="quota"), "quota"),
        (errors.ResourceExhausted("x", reason="queue_wait"), "queue_wait"),
        (errors.DeadlineExceeded("x"), "deadline"),
        (errors.Unavailable("x", reason="memory"), "memory"),
        (errors.Unavailable("x"), "other"),
        (errors.Internal("x", reason="no such reason"), "other"),
    ],
)
def test_each_error_has_one_reason(error: ServeryError, reason: str) -> None:
    assert reason_of(error) == reason


def told(rejections: Rejections) -> dict[str, dict[str, int]]:
    return {one.endpoint_id: one.counts for one in rejections.read()}


def test_totals_are_told_when_they_change_and_now_and_then() -> None:
    rejections = Rejections()
    for error in (errors.PermissionDenied("x"), errors.PermissionDenied("x"), errors.DeadlineExceeded("x")):
        rejections.count("e1", error)
    rejections.count(NO_ENDPOINT, errors.Unauthenticated("x"))
    assert told(rejections) == {"e1": {"permission": 2, "deadline": 1}, NO_ENDPOINT: {"unauthenticated": 1}}
    later = [told(rejections) for _ in range(ROUNDS)]
    assert {endpoint for one in later for endpoint in one} == {"e1", NO_ENDPOINT}
    rejections.count("e1", errors.DeadlineExceeded("x"))
    assert told(rejections)["e1"] == {"permission": 2, "deadline": 2}


def test_an_endpoint_that_is_gone_is_told_of_no_more() -> None:
    rejections = Rejections()
    rejections.count("e1", errors.DeadlineExceeded("x"))
    route = EndpointRoute(endpoint_id="e1", workspace_id="1", name="e", status="serving")
    rejections.follow([Change("e1", route, None)])
    assert told(rejections) == {}
