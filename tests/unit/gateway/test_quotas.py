import pytest

from servery_common.contracts.quotas import DEFAULT_QPS, GatewayDemand, WorkspaceQuota
from servery_common.errors import RequestLimitExceeded
from servery_gateway.quotas import WorkspaceQuotas
from servery_gateway.routing_table import Snapshot
from servery_gateway.shared_quota import IDLE, ROUND, burst_of


class Clock:
    """The quotas of one gateway and its clock."""

    def __init__(self, **quotas: int) -> None:
        self.now = 100.0
        self.quotas = WorkspaceQuotas(lambda: self.now)
        self.set(**quotas)

    def set(self, **quotas: int) -> None:
        values = {key: WorkspaceQuota(workspace_id=key, qps=qps) for key, qps in quotas.items()}
        self.quotas.update(Snapshot(quotas=values))

    def lets_in(self, workspace_id: str) -> bool:
        try:
            self.quotas.admit(workspace_id)
        except RequestLimitExceeded:
            return False
        return True

    def burst(self, workspace_id: str) -> int:
        return sum(self.lets_in(workspace_id) for _ in range(5000))


def test_a_workspace_without_a_quota_of_its_own_has_the_default() -> None:
    clock = Clock(b=3000)
    assert clock.burst("a") == burst_of(DEFAULT_QPS) == 50
    assert clock.burst("b") == 750


def test_a_small_quota_allows_ten_requests_at_once() -> None:
    assert Clock(a=1).burst("a") == 10


def test_workspaces_do_not_take_from_each_other() -> None:
    clock = Clock()
    clock.burst("a")
    assert not clock.lets_in("a")
    assert clock.lets_in("b")


def test_the_refusal_says_which_quota_and_how_to_raise_it() -> None:
    clock = Clock(a=40)
    clock.burst("a")
    with pytest.raises(RequestLimitExceeded) as refused:
        clock.quotas.admit("a")
    assert refused.value.status == 429
    assert refused.value.retry_after == 1
    for part in ("Workspace a", "40 scoring requests per second", "`servery quota set qps=N --workspace a`"):
        assert part in refused.value.message


def test_a_changed_quota_holds_from_the_next_request_on_and_no_other_begins_anew() -> None:
    clock = Clock()
    clock.burst("a")
    clock.burst("b")
    clock.set(a=3000)
    assert clock.burst("a") == 750
    assert not clock.lets_in("b")
    clock.set()
    assert clock.burst("a") == 50


def test_a_workspace_is_forgotten_once_it_asks_for_nothing_here_and_elsewhere() -> None:
    clock = Clock()
    clock.quotas.admit("a")
    [told] = clock.quotas.settle(alone=False)
    clock.quotas.hear(
        GatewayDemand(gateway_id="g", workspaces=(told.model_copy(update={"workspace_id": "b"}),))
    )
    assert clock.quotas.active == 2
    for _ in range(int(IDLE / ROUND) + 2):
        clock.now += ROUND
        clock.quotas.settle(alone=False)
    assert clock.quotas.active == 0


@pytest.mark.parametrize("qps", [1, 2, 4, 10, 200])
def test_bursts_with_pauses_get_no_more_than_the_quota(qps: int) -> None:
    clock = Clock(a=qps)
    seconds, let_in = 120, 0
    for tick in range(int(seconds / ROUND)):
        if tick % 22 == 0:
            let_in += clock.burst("a")
        clock.quotas.settle(alone=False)
        clock.now += ROUND
    assert let_in <= qps * seconds + burst_of(qps)


def test_a_bucket_is_kept_until_it_is_full_and_no_longer() -> None:
    clock = Clock(a=1)
    clock.burst("a")
    for _ in range(int(burst_of(1) / ROUND) - 1):
        clock.now += ROUND
        clock.quotas.settle(alone=False)
        assert clock.quotas.active == 1
    for _ in range(3):
        clock.now += ROUND
        clock.quotas.settle(alone=False)
    assert clock.quotas.active == 0
