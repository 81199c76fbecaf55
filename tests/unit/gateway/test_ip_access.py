import timeit

import pytest

from servery_common.contracts.ip_access import WorkspaceIpAccess
from servery_common.errors import PermissionDenied, Unavailable
from servery_gateway import ip_access
from servery_gateway.ip_access import IpAccess
from servery_gateway.rejections import reason_of
from servery_gateway.routing_table import Snapshot

OFFICE, ELSEWHERE = "203.0.113.7", "198.51.100.1"


class Door:
    """The decisions of one gateway."""

    def __init__(self) -> None:
        self.access = IpAccess()
        self.told: dict[str, WorkspaceIpAccess] = {}
        self.tell()

    def tell(
        self, workspace_id: str = "open", *, allow: tuple[str, ...] = (), block: tuple[str, ...] = ()
    ) -> None:
        one = WorkspaceIpAccess(workspace_id=workspace_id, allow=allow, block=block)
        self.told = {**self.told, workspace_id: one}
        self.access.update(Snapshot(ip_access=self.told, incarnations={ip_access.FIELD: "a"}))

    def lets_in(self, workspace_id: str, client: str | None) -> bool:
        try:
            self.access.require(workspace_id, client)
        except PermissionDenied:
            return False
        return True


def test_a_workspace_without_lists_may_be_reached_from_everywhere() -> None:
    door = Door()
    for client in (OFFICE, "::1", None, "unknown"):
        assert door.lets_in("open", client)
        assert door.lets_in("never-heard-of", client)


def test_the_lists_of_one_workspace_say_nothing_about_another() -> None:
    door = Door()
    door.tell("a", allow=("203.0.113.0/24",))
    door.tell("b", block=("203.0.113.0/24",))
    for _ in range(2):  # decided, remembered
        assert [door.lets_in(w, OFFICE) for w in ("a", "b", "open")] == [True, False, True]
        assert [door.lets_in(w, ELSEWHERE) for w in ("a", "b", "open")] == [False, True, True]
        assert [door.lets_in(w, None) for w in ("a", "b", "open")] == [False, False, True]


def test_changed_lists_hold_from_the_next_request_on() -> None:
    door = Door()
    assert door.lets_in("a", ELSEWHERE)
    door.tell("a", allow=("203.0.113.0/24",))
    assert not door.lets_in("a", ELSEWHERE)
    door.tell("b", allow=("203.0.113.0/24",))
    assert not door.lets_in("a", ELSEWHERE)
    door.tell("a", allow=("203.0.113.0/24", "198.51.100.0/24"))
    assert door.lets_in("a", ELSEWHERE)
    door.tell("a", block=("198.51.100.1/32",))
    assert not door.lets_in("a", ELSEWHERE)
    door.tell("a")
    assert door.lets_in("a", ELSEWHERE)


def test_the_refusal_says_which_address_and_which_workspace_and_is_counted_as_one() -> None:
    door = Door()
    door.tell("77", block=("198.51.100.0/24",))
    with pytest.raises(PermissionDenied) as refused:
        door.access.require("77", ELSEWHERE)
    assert refused.value.status == 403
    assert "Source IP address: 198.51.100.1 is blocked" in refused.value.message
    assert "workspace: 77" in refused.value.message
    assert reason_of(refused.value) == "ip_access"


def test_what_a_proxy_wrote_is_not_repeated_at_length() -> None:
    door = Door()
    door.tell("a", block=("198.51.100.0/24",))
    with pytest.raises(PermissionDenied) as refused:
        door.access.require("a", "x" * 60_000)
    assert len(refused.value.message) < 400


def test_nobody_is_let_in_before_anything_is_known() -> None:
    access = IpAccess()
    with pytest.raises(Unavailable):
        access.require("a", OFFICE)
    access.update(Snapshot(incarnations={ip_access.FIELD: ""}))
    with pytest.raises(Unavailable):
        access.require("a", OFFICE)
    access.update(Snapshot(incarnations={ip_access.FIELD: "first"}))
    access.require("a", OFFICE)


def test_decisions_are_kept_for_so_many_addresses_and_never_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ip_access, "MAX_DECISIONS", 10)
    door = Door()
    door.tell("a", allow=("10.0.0.0/25",))
    for _ in range(2):
        for last in range(256):
            assert door.lets_in("a", f"10.0.0.{last}") == (last < 128)
            assert len(door.access._decided) <= 10
    assert not door.lets_in("a", "no address")
    assert ("a", "no address") not in door.access._decided


@pytest.mark.parametrize("workspace", ["open", "listed"])
def test_the_decision_costs_little_enough_for_each_request(workspace: str) -> None:
    door = Door()
    door.tell("listed", allow=tuple(f"10.{n // 256}.{n % 256}.0/24" for n in range(1000)))
    calls = 2000
    require = door.access.require
    best = min(timeit.repeat(lambda: require(workspace, "10.1.2.3"), number=calls, repeat=20)) / calls
    assert best < 5e-6, "a fraction of what a request costs in all, whoever else uses the machine"
