from servery_common.contracts.access import Identity
from servery_common.contracts.routes import EndpointRoute
from servery_common.messaging.port import KvChange
from servery_gateway.routing_table import BUCKETS, RoutingTable, Snapshot


def route(name: str, created_at_ms: int = 1, id: str = "") -> EndpointRoute:
    return EndpointRoute(
        endpoint_id=id or f"e{name}",
        workspace_id="1",
        name=name,
        created_at_ms=created_at_ms,
        status="serving",
    )


def put(value: EndpointRoute) -> KvChange[EndpointRoute]:
    return KvChange("put", value.endpoint_id, value)


def caught_up(incarnation: str = "one", *missing: str) -> KvChange[EndpointRoute]:
    return KvChange("caught_up", incarnation=incarnation, missing=frozenset(missing))


def table(*known: EndpointRoute, incarnation: str = "one") -> RoutingTable:
    routes = {value.endpoint_id: value for value in known}
    return RoutingTable(Snapshot(routes=routes, incarnations={"routes": incarnation}), absence_grace=60)


def names(of: RoutingTable) -> set[str]:
    return {name for _, name in of.snapshot.by_name}


def test_a_listing_is_shown_as_a_whole() -> None:
    empty = table()
    empty.apply("routes", put(route("a")), 0)
    assert names(empty) == set()
    empty.apply("routes", caught_up(), 0)
    assert names(empty) == {"a"}


def test_the_bucket_has_the_last_word() -> None:
    known = table(route("a", 5))
    known.apply("routes", put(route("a", 4)), 0)
    known.apply("routes", caught_up(), 0)
    assert known.snapshot.routes["ea"].created_at_ms == 4


def test_a_delete_marker_removes_the_route() -> None:
    known = table()
    known.apply("routes", put(route("a")), 0)
    known.apply("routes", caught_up(), 0)
    known.apply("routes", KvChange("delete", "ea"), 0)
    assert names(known) == set()


def test_what_the_same_bucket_no_longer_lists_was_deleted_meanwhile() -> None:
    known = table(route("a"), route("b"))
    known.apply("routes", put(route("a")), 0)
    known.apply("routes", caught_up("one"), 0)
    assert names(known) == {"a"}


def test_a_new_and_empty_bucket_removes_nothing_ever() -> None:
    known = table(route("a"), route("b"))
    known.apply("routes", caught_up("two"), 0)
    for now in (0, 100, 1000):
        known.expire(now)
    assert names(known) == {"a", "b"}


def test_what_a_new_bucket_does_not_get_back_in_time_is_removed() -> None:
    known = table(route("a"), route("b"))
    known.apply("routes", caught_up("two"), 0)
    known.apply("routes", put(route("a")), 500)
    known.expire(500)
    known.expire(559)
    assert names(known) == {"a", "b"}
    known.expire(560)
    assert names(known) == {"a"}


def test_values_lost_while_we_watched_are_doubted_too() -> None:
    known = table()
    known.apply("routes", put(route("a")), 0)
    known.apply("routes", put(route("b")), 0)
    known.apply("routes", caught_up("one"), 0)
    known.apply("routes", put(route("c")), 1)
    known.apply("routes", caught_up("two", "ea", "eb"), 1)
    known.apply("routes", put(route("b")), 2)
    known.expire(2)
    assert names(known) == {"a", "b", "c"}
    known.expire(62)
    assert names(known) == {"b", "c"}


def test_of_two_endpoints_of_one_name_the_younger_one_answers() -> None:
    known = table(route("a", 3, id="old"), route("a", 7, id="new"))
    assert known.snapshot.by_name[("1", "a")].endpoint_id == "new"


def test_observers_see_the_present_and_every_new_snapshot() -> None:
    known = table()
    seen: list[Snapshot] = []
    known.observe(seen.append)
    identity = Identity(principal_id="aa", user_name="ann", workspace_id="1")
    known.apply("identities", KvChange("put", "aa", identity), 0)
    known.apply("identities", KvChange("caught_up", incarnation="one"), 0)
    assert [len(snapshot.identities) for snapshot in seen] == [0, 1]


def test_observers_are_called_for_the_fields_they_follow_and_nothing_is_made_again() -> None:
    known = table(route("a"))
    seen: list[Snapshot] = []
    known.observe(seen.append, ("routes",))
    index = known.snapshot.by_name
    known.apply("identities", KvChange("caught_up", incarnation="one"), 0)
    identity = Identity(principal_id="aa", user_name="ann", workspace_id="1")
    known.apply("identities", KvChange("put", "aa", identity), 0)
    assert dict(known.snapshot.identities) == {"aa": identity}
    assert len(seen) == 1
    assert known.snapshot.by_name is index
    known.apply("routes", put(route("b")), 0)
    known.apply("routes", caught_up(), 0)
    assert names(known) == {"b"}
    assert set(seen[-1].routes) == {"eb"}


def test_it_is_loaded_after_all_listings_or_with_an_old_snapshot() -> None:
    fresh = table()
    for bucket in BUCKETS:
        assert not fresh.loaded
        fresh.apply(bucket, KvChange("caught_up", incarnation="one"), 0)
    assert fresh.loaded
    assert table(route("a")).loaded
