import random

import pytest

from servery_common.contracts.access import Identity
from servery_common.contracts.quotas import GatewayCalls
from servery_common.contracts.routes import EndpointRoute, RateLimit
from servery_common.errors import RequestLimitExceeded
from servery_gateway.rate_limits import RateLimiter
from servery_gateway.sliding_window import WINDOW, SlidingWindow

ANN = Identity(principal_id="p1", user_name="ann", workspace_id="1")
BOB = Identity(principal_id="p2", user_name="bob", workspace_id="1")


def endpoint(*limits: RateLimit, endpoint_id: str = "e") -> EndpointRoute:
    return EndpointRoute(
        endpoint_id=endpoint_id, workspace_id="1", name="iris", status="serving", rate_limits=limits
    )


class Gate:
    """A limiter and its clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.limiter = RateLimiter(lambda: self.now)

    def lets_in(self, route: EndpointRoute, caller: Identity = ANN) -> bool:
        try:
            self.limiter.admit(route, caller)
        except RequestLimitExceeded:
            return False
        return True


def test_no_window_of_a_minute_holds_more_than_the_limit() -> None:
    draw = random.Random(7)
    gate, route, let_in = Gate(), endpoint(RateLimit(calls=10)), []
    for _ in range(3000):
        gate.now += draw.expovariate(0.5)
        if gate.lets_in(route):
            let_in.append(gate.now)
    assert len(let_in) > 10 * (gate.now - 100) / (WINDOW + 1) * 0.8, "it lets in nearly what it may"
    for first, eleventh in zip(let_in, let_in[10:], strict=False):
        assert eleventh - first >= WINDOW


@pytest.mark.parametrize("began", [100.0, 100.5, 100.999])
def test_retry_after_is_when_there_is_room_again(began: float) -> None:
    gate, route = Gate(), endpoint(RateLimit(calls=2))
    gate.now = began
    assert gate.lets_in(route)
    gate.now = began + 10
    assert gate.lets_in(route)
    with pytest.raises(RequestLimitExceeded, match="2 calls per minute from all callers") as refused:
        gate.limiter.admit(route, ANN)
    assert refused.value.retry_after is not None
    gate.now += refused.value.retry_after
    assert gate.lets_in(route)
    assert not gate.lets_in(route)


def test_refused_calls_do_not_count() -> None:
    gate, route = Gate(), endpoint(RateLimit(calls=1))
    assert gate.lets_in(route)
    for _ in range(WINDOW):
        gate.now += 1
        assert not gate.lets_in(route)
    gate.now += 1
    assert gate.lets_in(route)


def test_a_limit_per_user_counts_each_of_them() -> None:
    gate, route = Gate(), endpoint(RateLimit(key="user", calls=1))
    assert gate.lets_in(route, ANN)
    assert not gate.lets_in(route, ANN)
    assert gate.lets_in(route, BOB)
    assert gate.lets_in(endpoint(RateLimit(key="user", calls=1), endpoint_id="other"), ANN)


def test_what_one_limit_refuses_the_other_does_not_count() -> None:
    gate = Gate()
    route = endpoint(RateLimit(key="endpoint", calls=2), RateLimit(key="user", calls=1))
    assert gate.lets_in(route, ANN)
    assert not gate.lets_in(route, ANN)
    assert gate.lets_in(route, BOB)


def test_a_limit_of_zero_refuses_everybody() -> None:
    gate = Gate()
    with pytest.raises(RequestLimitExceeded) as refused:
        gate.limiter.admit(endpoint(RateLimit(calls=0)), ANN)
    assert refused.value.retry_after == WINDOW


def test_a_changed_limit_holds_for_calls_that_were_already_made() -> None:
    gate = Gate()
    assert gate.lets_in(endpoint(RateLimit(calls=5)))
    assert not gate.lets_in(endpoint(RateLimit(calls=1)))
    assert gate.lets_in(endpoint(RateLimit(calls=2)))


def test_who_does_not_call_any_more_is_forgotten() -> None:
    gate, route = Gate(), endpoint(RateLimit(key="user", calls=5))
    gate.lets_in(route, ANN)
    gate.now += 30
    gate.lets_in(route, BOB)
    gate.now += WINDOW - 29
    gate.limiter.forget_idle()
    assert gate.limiter.counted == 1


def test_a_window_needs_no_more_memory_than_it_has_seconds() -> None:
    window = SlidingWindow()
    for tenth in range(100_000):
        window.add(tenth / 10)
    window.count(10_000)
    assert len(window._seconds) <= WINDOW + 1


def test_calls_let_in_elsewhere_count_and_only_ones_own_are_told_of() -> None:
    called: list[None] = []
    route = endpoint(RateLimit(calls=5), RateLimit(calls=3, key="user"))
    here, there = Gate(), Gate()
    there.limiter = RateLimiter(lambda: there.now, lambda: called.append(None))
    assert there.lets_in(route, ANN)
    assert there.lets_in(route, ANN)
    assert there.lets_in(route, BOB)
    assert len(called) == 3
    counts = tuple(there.limiter.take_untold())
    assert {(one.principal_id, one.calls) for one in counts} == {("", 3), ("p1", 2), ("p2", 1)}
    assert there.limiter.take_untold() == []

    here.limiter.hear(GatewayCalls(gateway_id="g", counts=counts))
    assert here.limiter.take_untold() == []
    assert here.lets_in(route, ANN)
    assert not here.lets_in(route, ANN), "three calls of hers"
    assert here.lets_in(route, BOB)
    assert not here.lets_in(route, BOB), "five calls of everybody's"
