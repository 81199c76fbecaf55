"""Quotas, the reserve for first replicas, and who gives replicas back."""

from dataclasses import replace

import pytest

from servery_controller.domain.capacity import (
    Holding,
    Room,
    Scope,
    ScopeKind,
    Usage,
    WaitingFirst,
    Workspace,
    added_by,
    choose_extra,
    holdings_in,
    scopes_of,
)

WORKSPACE, REGION, WORKERS = ScopeKind.WORKSPACE, ScopeKind.REGION, ScopeKind.WORKERS


def held(entity: str, count: int, *, endpoint="", version=1, workspace="1", **changes) -> list[Holding]:
    """So many replicas of a served entity, oldest first."""
    first = Holding(
        replica_id="",
        served_entity_id=entity,
        config_version=version,
        endpoint_id=endpoint or f"of-{entity}",
        workspace_id=workspace,
        slots=4,
        promised=1,
    )
    return [replace(first, replica_id=f"{entity}-{i}", **changes) for i in range(1, count + 1)]


def workspace(id="1", *, quota: int | None = None, region="", asleep=0) -> Workspace:
    return Workspace(id, f"name of {id}", region, quota, asleep)


def usage(*holdings: list[Holding], workspaces=(), **regions: int) -> Usage:
    known = workspaces or (workspace(),)
    return Usage([h for some in holdings for h in some], {w.id: w for w in known}, regions)


def workers(slots: int, used: int, **changes) -> Scope:
    return replace(Scope(WORKERS, "", slots, used), **changes)


def shown(scopes: list[Scope]) -> list[tuple]:
    return [(s.kind, s.key, s.slots, s.used) for s in scopes]


def test_a_replica_takes_slots_of_its_workspace_its_region_and_the_workers():
    known = (workspace("1", quota=16, region="eu"), workspace("2", region="eu"), workspace("3"))
    world = usage(
        held("a", 2), held("b", 1, workspace="2"), held("c", 3, workspace="3"), workspaces=known, eu=32
    )
    room = Room(64, 24)
    assert shown(scopes_of(world, "1", room)) == [
        (WORKSPACE, "1", 16, 8),
        (REGION, "eu", 32, 12),
        (WORKERS, "", 64, 24),
    ]
    assert shown(scopes_of(world, "2", room)) == [(REGION, "eu", 32, 12), (WORKERS, "", 64, 24)]
    assert shown(scopes_of(world, "3", room)) == [(WORKERS, "", 64, 24)]
    assert shown(scopes_of(world, "unknown", room)) == [(WORKERS, "", 64, 24)]


def test_an_update_counts_once_with_the_version_that_takes_the_most():
    old = held("old", 2, endpoint="ep", version=1)
    new = held("new", 3, endpoint="ep", version=2)
    world = usage(old, new, held("other", 1), workspaces=[workspace(quota=99)])
    assert {h.served_entity_id for h in holdings_in(world, WORKSPACE, "1")} == {"new", "other"}
    assert scopes_of(world, "1", Room(99, 24))[0].used == 16
    assert len(holdings_in(world, WORKERS, "")) == 6, "the workers hold them all"


def test_an_update_adds_nothing_as_long_as_it_takes_no_more_than_what_serves():
    world = usage(
        held("old", 2, endpoint="ep", version=1),
        held("new", 1, endpoint="ep", version=2),
        workspaces=[workspace(quota=8)],
    )
    [quota, on_workers] = scopes_of(world, "1", Room(64, 12))
    [_, second, third] = held("new", 3, endpoint="ep", version=2)
    assert added_by(second, world, quota) == 0
    assert quota.refusal(added_by(second, world, quota), first=False) is None
    assert added_by(second, world, on_workers) == 4
    full = replace(world, holdings=[*world.holdings, second])
    assert added_by(third, full, quota) == 4
    assert quota.refusal(4, first=False)


def test_what_drains_counts_until_it_has_gone():
    world = usage(held("a", 1), held("b", 1, stopping=True), workspaces=[workspace(quota=8)])
    [quota, _] = scopes_of(world, "1", Room(64, 8))
    assert quota.refusal(4, first=True)


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        (Scope(WORKSPACE, "1", 8, 8), "workspace's compute quota is used up: 8 of 8 slots are used"),
        (Scope(REGION, "eu", 8, 6), "region 'eu' is used up: 6 of 8 slots are used, and a replica takes 4"),
        (Scope(WORKERS, "", 8, 8), "Start another worker"),
        (Scope(WORKSPACE, "1", 0, 0), "0 of 0 slots"),
        (Scope(WORKSPACE, "1", 4, 12), "12 of 4 slots"),
    ],
)
def test_what_is_used_up_is_said(scope: Scope, said: str):
    for first in (True, False):
        assert said in (scope.refusal(4, first=first) or "")


def test_extras_leave_room_for_first_replicas_that_wait():
    free_for_two = workers(16, 8, waiting=1)
    assert free_for_two.refusal(4, first=False) is None
    free_for_one = workers(16, 12, waiting=1)
    assert "last 4 slots of the workers are kept" in (free_for_one.refusal(4, first=False) or "")
    assert free_for_one.refusal(4, first=True) is None
    assert workers(16, 12).refusal(4, first=False) is None, "nobody needs it"


@pytest.mark.parametrize(
    ("slots", "asleep", "reserve"),
    [
        (64, 0, 0),
        (64, 1, 4),
        (64, 4, 16),
        (64, 100, 16),  # a quarter at most
        (16, 5, 4),
        (12, 5, 0),  # too small to keep anything free for what sleeps
    ],
)
def test_entities_at_zero_have_a_quarter_kept_for_them_at_most(slots: int, asleep: int, reserve: int):
    assert workers(slots, 0, asleep=asleep).reserve(4) == reserve


def test_whoever_waits_counts_in_full():
    assert workers(16, 16, waiting=3, asleep=9).reserve(4) == 12


def test_who_waits_for_a_quota_keeps_nobody_from_the_workers():
    known = (workspace("1", quota=4), workspace("2", quota=8))
    world = usage(held("a", 1), workspaces=known)
    waiting = [WaitingFirst(WORKSPACE, "1", "")]
    assert [s.waiting for s in scopes_of(world, "1", Room(64, 4), waiting)] == [1, 0]
    assert [s.waiting for s in scopes_of(world, "2", Room(64, 4), waiting)] == [0, 0]


def test_asleep_entities_count_where_they_are():
    known = (workspace("1", quota=64, region="eu", asleep=1), workspace("2", region="eu", asleep=2))
    world = usage(workspaces=(*known, workspace("3", asleep=4)), eu=64)
    assert [s.asleep for s in scopes_of(world, "1", Room(64, 0))] == [1, 3, 7]


def test_the_youngest_replica_of_the_biggest_is_given_back():
    assert choose_extra([*held("a", 2), *held("b", 3), *held("c", 1)], 4, 0) == held("b", 3)[-1]


def test_who_has_more_than_promised_gives_before_who_has_not():
    promised = held("large", 4, promised=4)
    extra = held("b", 3)
    assert choose_extra([*promised, *extra], 4, 0) == extra[-1]
    assert choose_extra([*promised, *held("c", 1)], 4, 0) == promised[-1], (
        "better than one that serves nothing"
    )


def test_nobody_gives_the_last_replica_nor_one_that_drains():
    assert choose_extra([*held("a", 1), *held("b", 1)], 4, 0) is None
    draining = held("b", 2)
    draining[1] = replace(draining[1], stopping=True)
    assert choose_extra(draining, 4, 0) is None


def test_no_more_is_given_back_than_first_replicas_wait_for():
    assert choose_extra(held("a", 5), 4, 4) is None, "room is on its way"
    assert choose_extra(held("a", 5), 8, 4) is not None, "for one of two"


def test_extras_that_stream_for_long_are_not_followed_by_ever_more():
    streaming = [replace(h, stopping=True) for h in held("a", 3)]
    assert choose_extra([*streaming[:2], *held("b", 3)], 4, 0) is not None
    assert choose_extra([*streaming, *held("b", 3)], 4, 0) is None
