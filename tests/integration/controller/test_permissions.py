"""Who may do what with an endpoint: the API, the tables and what gateways are told of it."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from databricks.sdk.service.serving import ServingEndpointPermissions
from tests.factories import endpoint
from tests.infrastructure import NatsServer
from tests.integration.controller.conftest import World
from tests.integration.controller.peers import ADMIN, entity

from servery_common.contracts import subjects
from servery_common.contracts.access import Identity
from servery_common.contracts.routes import EndpointRoute, RateLimit
from servery_common.errors import InvalidParameter, NotFound, PermissionDenied
from servery_common.messaging.bus import NatsBus, connect_bus
from servery_common.postgres.migrate import migrate
from servery_common.postgres.pool import Pool, create_pool
from servery_common.settings import NatsSettings, PostgresSettings
from servery_controller.access import directory_store
from servery_controller.access.bootstrap import ensure_bootstrap
from servery_controller.access.directory_service import DirectoryService
from servery_controller.access.scim import GroupChange
from servery_controller.domain.permissions import Grantee, PermissionLevel
from servery_controller.endpoints import endpoint_access, endpoint_grants, store
from servery_controller.endpoints.endpoint_changes import EndpointChanges
from servery_controller.endpoints.endpoint_settings import EndpointSettings
from servery_controller.endpoints.permission_service import PermissionService

VIEW, QUERY, MANAGE = PermissionLevel.CAN_VIEW, PermissionLevel.CAN_QUERY, PermissionLevel.CAN_MANAGE
ANN = Identity(principal_id="a" * 32, user_name="ann", workspace_id="1", groups=("users",))
BOB = Identity(principal_id="b" * 32, user_name="bob", workspace_id="1", groups=("users",))
STRANGER = Identity(principal_id="c" * 32, user_name="ann", workspace_id="2", admin=True)
CREATED = {"name": "iris", "config": {"served_entities": [entity()]}}


async def call(
    world: World, caller: Identity, method: str, path: str, body: Any = None
) -> tuple[int, dict[str, Any]]:
    text = json.dumps(body) if body is not None else ""
    answer = await world.gateway.call(method, path, text, identity=caller)
    return answer.status, json.loads(answer.body)


async def make_known(pool: Pool) -> None:
    """Ann, Bob, a group without members, and another workspace with its administrator."""
    async with pool.acquire() as conn, conn.transaction():
        await directory_store.insert_workspace(conn, "2", "other", "")
        for one in (ANN, BOB, STRANGER):
            await directory_store.insert_principal(
                conn, one.principal_id, one.workspace_id, one.kind, one.user_name, ""
            )
        await directory_store.insert_group(conn, "1", "team")


@pytest.fixture
async def people(world: World, postgres_url: str) -> None:
    pool = await create_pool(PostgresSettings(url=postgres_url))
    await make_known(pool)
    await pool.close()


class Unheard:
    """Takes news of the directory for gateways that are not there."""

    async def workspace_changed(self, workspace_id: str, **gone: Any) -> None: ...


async def create(world: World, caller: Identity) -> str:
    """Returns the path of its permissions."""
    status, created = await call(world, caller, "POST", "", CREATED)
    assert status == 200
    return f"/api/2.0/permissions/serving-endpoints/{created['id']}"


def acl(**entry: str) -> dict[str, Any]:
    return {"access_control_list": [entry]}


async def test_without_a_grant_an_endpoint_can_be_neither_seen_nor_changed(world: World, people: None):
    path = await create(world, ANN)
    for method, below, body in (
        ("GET", "/iris", None),
        ("GET", "/iris/served-models/iris-1/logs", None),
        ("PUT", "/iris/config", CREATED["config"]),
        ("POST", "/iris/config:cancel", None),
        ("DELETE", "/iris", None),
        ("GET", path, None),
        ("GET", f"{path}/permissionLevels", None),
        ("PUT", path, acl(group_name="users", permission_level="CAN_MANAGE")),
        ("PATCH", path, acl(group_name="nobody", permission_level="CAN_MANAGE")),
    ):
        status, error = await call(world, BOB, method, below, body)
        assert (status, error["error_code"]) == (403, "PERMISSION_DENIED"), (method, below)
        assert "'bob' does not have" in error["message"]
        assert (await call(world, STRANGER, method, below, body))[0] == 404
    assert (await call(world, BOB, "GET", ""))[1] == {"endpoints": []}
    assert [e["name"] for e in (await call(world, ANN, "GET", ""))[1]["endpoints"]] == ["iris"]
    assert [e["name"] for e in (await call(world, ADMIN, "GET", ""))[1]["endpoints"]] == ["iris"]


async def test_each_level_allows_what_it_says_and_answers_name_the_callers(world: World, people: None):
    path = await create(world, ANN)
    for level in ("CAN_VIEW", "CAN_QUERY", "CAN_MANAGE"):
        status, _ = await call(world, ANN, "PATCH", path, acl(group_name="users", permission_level=level))
        assert status == 200
        _, shown = await call(world, BOB, "GET", "/iris")
        _, listed = await call(world, BOB, "GET", "")
        assert shown["permission_level"] == listed["endpoints"][0]["permission_level"] == level
        may_manage = (await call(world, BOB, "PATCH", path, {}))[0] == 200
        assert may_manage == (level == "CAN_MANAGE")
    assert (await call(world, ANN, "GET", "/iris"))[1]["permission_level"] == "CAN_MANAGE"
    assert (await call(world, BOB, "DELETE", "/iris"))[0] == 200
    assert (await call(world, ANN, "GET", path))[0] == 404


async def test_a_change_reaches_the_gateways(world: World, people: None):
    path = await create(world, ANN)
    await world.settled("iris")

    def grantees() -> tuple[str, ...] | None:
        route = world.gateway.route("iris")
        return route.query_grantees if route is not None else None

    assert grantees() == ("user:ann",)
    await call(world, ANN, "PATCH", path, acl(group_name="users", permission_level="CAN_QUERY"))
    await world.until(lambda: grantees() == ("group:users", "user:ann"))
    await call(world, ADMIN, "PUT", path, acl(group_name="users", permission_level="CAN_VIEW"))
    await world.until(lambda: grantees() == ())
    assert world.gateway.route("iris").served_entities[0].replicas


async def test_databricks_sdk_reads_the_answers(world: World, people: None):
    path = await create(world, ADMIN)
    _, answer = await call(world, ADMIN, "PATCH", path, acl(group_name="users", permission_level="CAN_QUERY"))
    assert (await call(world, ADMIN, "GET", path))[1] == answer
    read = ServingEndpointPermissions.from_dict(answer)
    assert read.object_id == path.removeprefix("/api/2.0/permissions")
    assert read.object_type == "serving-endpoint"
    assert {
        (one.user_name or one.group_name, held.permission_level.value, held.inherited)
        for one in read.access_control_list or []
        for held in one.all_permissions or []
    } == {("admin", "CAN_MANAGE", False), ("users", "CAN_QUERY", False), ("admins", "CAN_MANAGE", True)}
    _, levels = await call(world, ADMIN, "GET", f"{path}/permissionLevels")
    assert [one["permission_level"] for one in levels["permission_levels"]] == [
        "CAN_VIEW",
        "CAN_QUERY",
        "CAN_MANAGE",
    ]


async def test_what_cannot_be_granted_is_refused(world: World, people: None):
    path = await create(world, ANN)
    for body, status, text in (
        (acl(group_name="users", permission_level="CAN_FLY"), 400, "CAN_FLY"),
        (acl(permission_level="CAN_VIEW"), 400, "exactly one of"),
        (acl(group_name="nobody", permission_level="CAN_VIEW"), 404, "Group 'nobody' does not exist"),
        (acl(user_name="nobody", permission_level="CAN_VIEW"), 404, "User 'nobody' does not exist"),
        (acl(group_name="users", permission_level="CAN_VIEW"), 400, "take CAN_MANAGE from yourself"),
    ):
        answer = await call(world, ANN, "PUT", path, body)
        assert (answer[0], text in answer[1]["message"]) == (status, True), answer
    by_name = path.replace(path.rsplit("/", 1)[1], "iris")
    assert (await call(world, ANN, "GET", by_name))[0] == 404
    status, error = await call(world, ANN, "GET", "/api/2.0/permissions/registered-models/1")
    assert (status, error["error_code"]) == (501, "NOT_IMPLEMENTED")
    assert (await call(world, ANN, "GET", path))[1]["access_control_list"][0]["user_name"] == "ann"


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader looks at what it was not told of hardly ever."""
    monkeypatch.setenv("SERVERY_RECONCILE_POLL_SECONDS", "30")


async def published(bus: NatsBus, endpoint_id: str) -> EndpointRoute:
    """What any gateway would read now."""
    bucket = await bus.nats.jetstream().key_value(subjects.ROUTES_BUCKET)
    value = (await bucket.get(endpoint_id)).value
    assert value is not None
    return EndpointRoute.model_validate_json(value)


async def test_what_was_answered_holds_also_when_another_controller_leads(
    seldom: None, world: World, people: None, own_nats: NatsServer, postgres_url: str
):
    _, created = await call(world, ANN, "POST", "", {"name": "iris"})
    endpoint_id = created["id"]
    users = Grantee("group", "users")
    pool = await create_pool(PostgresSettings(url=postgres_url))
    # Another controller, as it were: its use cases, in a process that does not lead.
    async with connect_bus(NatsSettings(url=own_nats.url), name="controller") as bus:
        changes = EndpointChanges(pool, bus, patience=20)
        permissions = PermissionService(pool, changes)
        directory = DirectoryService(pool, Unheard(), changes)
        for level, told in ((QUERY, ("group:users", "user:ann")), (VIEW, ("user:ann",))):
            await permissions.merge(endpoint_id, {users: level}, ANN)
            assert (await published(bus, endpoint_id)).query_grantees == told

        await EndpointSettings(pool, changes).set_rate_limits("iris", [RateLimit(calls=7)], ANN)
        assert [limit.calls for limit in (await published(bus, endpoint_id)).rate_limits] == [7]

        await permissions.merge(endpoint_id, {Grantee("group", "team"): QUERY}, ANN)
        team = await pool.fetchval("SELECT number FROM groups WHERE name = 'team'")
        await directory.change_group(ADMIN, team, GroupChange(name="crew"))
        assert (await published(bus, endpoint_id)).query_grantees == ("group:crew", "user:ann")
        await directory.delete_group(ADMIN, team)
        assert (await published(bus, endpoint_id)).query_grantees == ("user:ann",)
    await pool.close()


async def test_a_change_is_answered_although_nobody_leads(pool: Pool, own_nats: NatsServer):
    async with connect_bus(NatsSettings(url=own_nats.url), name="controller") as bus:
        service = PermissionService(pool, EndpointChanges(pool, bus, patience=0.05))
        changed = await service.merge("ep1", {Grantee.of(BOB): QUERY}, ANN)
    assert changed.grants[Grantee.of(BOB)] is QUERY


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    pool = await create_pool(PostgresSettings(url=postgres_url))
    await migrate(pool)
    await ensure_bootstrap(pool, token="t", user_name="admin", workspace_id="1")
    await make_known(pool)
    async with pool.acquire() as conn, conn.transaction():
        await store.insert_endpoint(conn, endpoint())
        await endpoint_grants.put(conn, "ep1", Grantee.of(ANN), MANAGE)
    yield pool
    await pool.close()


class Noted(EndpointChanges):
    """Notes what gateways should be told of; there is no reconciler to wait for."""

    def __init__(self) -> None:
        self.generations: list[dict[str, int]] = []

    async def published(self, generations: Mapping[str, int]) -> None:
        self.generations.append(dict(generations))


async def test_put_replaces_and_patch_merges(pool: Pool):
    changes = Noted()
    service = PermissionService(pool, changes)
    ann, bob, team = Grantee("user", "ann"), Grantee("user", "bob"), Grantee("group", "team")

    assert (await service.get("ep1", ANN)).grants == {ann: MANAGE}
    merged = await service.merge("ep1", {Grantee("user", "BOB"): VIEW, team: QUERY}, ANN)
    assert merged.grants == {ann: MANAGE, bob: VIEW, team: QUERY}, "by the names they have"
    merged = await service.merge("ep1", {bob: MANAGE}, ANN)
    assert merged.grants == {ann: MANAGE, bob: MANAGE, team: QUERY}
    assert (await service.get("ep1", ADMIN)) == merged
    assert (await service.replace("ep1", {bob: MANAGE}, BOB)).grants == {bob: MANAGE}
    assert changes.generations == [{"ep1": 2}, {"ep1": 3}, {"ep1": 4}]
    with pytest.raises(PermissionDenied):
        await service.get("ep1", ANN)
    with pytest.raises(InvalidParameter):
        await service.replace("ep1", {ann: MANAGE}, BOB)
    with pytest.raises(NotFound):
        await service.replace("ep1", {ann: MANAGE, Grantee("service_principal", "bob"): VIEW}, ADMIN)
    assert (await service.get("ep1", BOB)).grants == {bob: MANAGE}, "what was refused changed nothing"
    assert (await service.replace("ep1", {}, ADMIN)).grants == {}
    generation = await pool.fetchval("SELECT generation FROM endpoints WHERE id = 'ep1'")
    assert generation == 5, "each change is one a reconcile step must see"


async def test_grants_follow_a_renamed_group_and_end_with_a_deleted_one(pool: Pool):
    changes = Noted()
    service = PermissionService(pool, changes)
    team = Grantee("group", "team")
    await service.merge("ep1", {team: QUERY, Grantee.of(BOB): QUERY}, ANN)
    await pool.execute("UPDATE endpoints SET due_at = 'infinity'")
    number = await pool.fetchval("SELECT number FROM groups WHERE name = 'team'")

    directory = DirectoryService(pool, Unheard(), changes)
    await directory.change_group(ADMIN, number, GroupChange(name="crew"))
    assert Grantee("group", "crew") in (await service.get("ep1", ANN)).grants
    assert await pool.fetchval("SELECT due_at <= now() FROM endpoints"), "gateways are told of the new name"
    assert changes.generations[-1] == {"ep1": 3}
    await directory.delete_group(ADMIN, number)
    bobs = await pool.fetchval("SELECT number FROM principals WHERE name = 'bob'")
    await directory.delete_principal(ADMIN, "user", bobs)
    assert (await service.get("ep1", ANN)).grants == {Grantee.of(ANN): MANAGE}
    assert changes.generations[-2:] == [{"ep1": 4}, {"ep1": 5}], "a deletion is waited for as well"


async def test_every_way_to_an_endpoint_asks_for_the_permission(pool: Pool):
    async with pool.acquire() as conn, conn.transaction():
        assert await endpoint_grants.put(conn, "ep1", Grantee("group", "users"), QUERY)
        for level in (VIEW, QUERY):
            assert await endpoint_access.find(conn, "iris", BOB, level) == "ep1"
            assert (await endpoint_access.locked(conn, "iris", BOB, level)).endpoint.id == "ep1"
        with pytest.raises(PermissionDenied):
            await endpoint_access.find(conn, "iris", BOB, MANAGE)
        with pytest.raises(PermissionDenied):
            await endpoint_access.locked(conn, "iris", BOB, MANAGE)
        with pytest.raises(NotFound):
            await endpoint_access.find(conn, "iris", STRANGER, VIEW)
    assert await endpoint_grants.visible_endpoint_ids(pool, BOB) == ["ep1"]
    assert await endpoint_grants.visible_endpoint_ids(pool, STRANGER) == []
