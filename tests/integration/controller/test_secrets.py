"""Secrets against real Postgres: the API as databricks-sdk parses it, references, and nothing readable at rest."""

import base64
import json
from typing import Any

import asyncpg
import pytest
from databricks.sdk.service.workspace import (
    AclItem,
    AclPermission,
    GetSecretResponse,
    ListAclsResponse,
    ListScopesResponse,
    ListSecretsResponse,
    ScopeBackendType,
)
from tests.integration.controller.conftest import World
from tests.integration.controller.peers import ADMIN, entity

from servery_common.contracts import subjects
from servery_common.contracts.access import Identity
from servery_common.contracts.builds import ModelEnvironment, ReadModelEnvironment
from servery_common.errors import InvalidParameter

SECRET = "hunter2-is-nowhere-to-be-read"
ANN = Identity(principal_id="a" * 32, user_name="ann", workspace_id="1", groups=("data",))
BOB = Identity(principal_id="b" * 32, user_name="bob", workspace_id="1")
ELSEWHERE = Identity(principal_id="c" * 32, user_name="admin", workspace_id="2", admin=True)


@pytest.fixture(autouse=True)
async def people(world: World, postgres_url: str) -> None:
    """Ann in the group ``data``, Bob, and the administrator of another workspace."""
    database = await asyncpg.connect(postgres_url)
    await database.execute("INSERT INTO workspaces (id, name) VALUES ('2', 'elsewhere')")
    await database.execute("INSERT INTO groups (workspace_id, name) VALUES ('1', 'data'), ('2', 'admins')")
    for person in (ANN, BOB, ELSEWHERE):
        await database.execute(
            "INSERT INTO principals (id, workspace_id, kind, name) VALUES ($1, $2, 'user', $3)",
            person.principal_id,
            person.workspace_id,
            person.user_name,
        )
    await database.execute(
        """INSERT INTO memberships (group_number, principal_number)
           SELECT g.number, p.number FROM groups g JOIN principals p USING (workspace_id)
           WHERE (p.name, g.name) IN (('ann', 'data'), ('ann', 'users'), ('bob', 'users'))
              OR (p.id, g.name) = ($1, 'admins')""",
        ELSEWHERE.principal_id,
    )
    await database.close()


async def call(
    world: World, method: str, path: str, body: Any = None, caller: Identity = ADMIN
) -> tuple[int, dict[str, Any]]:
    answer = await world.gateway.call(
        method, f"/api/2.0/secrets{path}", json.dumps(body) if body is not None else "", identity=caller
    )
    return answer.status, json.loads(answer.body)


async def ok(world: World, method: str, path: str, body: Any = None, caller: Identity = ADMIN) -> Any:
    status, answer = await call(world, method, path, body, caller)
    assert status == 200, answer
    return answer


async def refused(
    world: World, method: str, path: str, body: Any = None, caller: Identity = ADMIN
) -> tuple[int, str]:
    status, answer = await call(world, method, path, body, caller)
    return status, answer["error_code"]


async def put(world: World, scope: str = "prod", key: str = "key", value: str = SECRET) -> None:
    """Store a secret of the administrator's, in a scope that may be new."""
    await call(world, "POST", "/scopes/create", {"scope": scope})
    await ok(world, "POST", "/put", {"scope": scope, "key": key, "string_value": value})


def asking(reference: str = "{{secrets/prod/key}}", **changes: Any) -> dict[str, Any]:
    return {"served_entities": [entity(environment_vars={"KEY": reference, "PLAIN": "as it is"}, **changes)]}


async def environment_of(world: World, served_entity_id: str) -> dict[str, str]:
    """As the builder asks."""
    answer = await world.gateway.bus.request(
        subjects.controller_model_environment(),
        ReadModelEnvironment(served_entity_id=served_entity_id),
        ModelEnvironment,
        timeout=15,
    )
    return answer.variables


async def test_a_secret_is_stored_listed_read_and_deleted(world: World):
    await ok(world, "POST", "/scopes/create", {"scope": "prod", "scope_backend_type": "DATABRICKS"})
    assert await refused(world, "POST", "/scopes/create", {"scope": "prod"}) == (
        400,
        "RESOURCE_ALREADY_EXISTS",
    )
    await ok(world, "POST", "/put", {"scope": "prod", "key": "text", "string_value": "grüße"})
    encoded = base64.b64encode(b"\x00\xff").decode()
    await ok(world, "POST", "/put", {"scope": "prod", "key": "bytes", "bytes_value": encoded})

    scopes = ListScopesResponse.from_dict(await ok(world, "GET", "/scopes/list")).scopes or []
    assert [(one.name, one.backend_type) for one in scopes] == [("prod", ScopeBackendType.DATABRICKS)]
    secrets = ListSecretsResponse.from_dict(await ok(world, "GET", "/list?scope=prod")).secrets or []
    assert [one.key for one in secrets] == ["bytes", "text"]
    assert all((one.last_updated_timestamp or 0) > 1_600_000_000_000 for one in secrets)
    text = GetSecretResponse.from_dict(await ok(world, "GET", "/get?scope=prod&key=text"))
    assert (text.key, base64.b64decode(text.value or "").decode()) == ("text", "grüße")
    assert (await ok(world, "GET", "/get?scope=prod&key=bytes"))["value"] == encoded

    await ok(world, "POST", "/put", {"scope": "prod", "key": "text", "string_value": "another"})
    assert base64.b64decode((await ok(world, "GET", "/get?scope=prod&key=text"))["value"]) == b"another"
    await ok(world, "POST", "/delete", {"scope": "prod", "key": "text"})
    gone = (404, "RESOURCE_DOES_NOT_EXIST")
    assert await refused(world, "GET", "/get?scope=prod&key=text") == gone
    assert await refused(world, "POST", "/delete", {"scope": "prod", "key": "text"}) == gone
    await ok(world, "POST", "/scopes/delete", {"scope": "prod"})
    assert await refused(world, "GET", "/list?scope=prod") == gone
    assert await refused(world, "POST", "/scopes/delete", {"scope": "prod"}) == gone


async def test_what_is_not_allowed_is_refused_without_repeating_the_value(world: World):
    await put(world)
    wrong = [
        {"scope": "prod", "key": "k"},
        {"scope": "prod", "key": "k", "string_value": SECRET, "bytes_value": "aGk="},
        {"scope": "prod", "key": "k", "bytes_value": SECRET + "!"},
        {"scope": "prod", "key": "a key", "string_value": SECRET},
        {"scope": "prod", "key": "k", "string_value": SECRET + "\0"},
        {"scope": "prod", "key": "k", "string_value": [SECRET]},
        {"scope": "prod", "key": "k", "string_value": SECRET * 10_000},
        {"scope": "prod", "string_value": SECRET},
    ]
    for body in wrong:
        status, answer = await call(world, "POST", "/put", body)
        assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
        assert SECRET not in answer["message"]
    vault = {
        "scope": "v",
        "scope_backend_type": "AZURE_KEYVAULT",
        "backend_azure_keyvault": {"dns_name": "x"},
    }
    assert await refused(world, "POST", "/scopes/create", vault) == (501, "NOT_IMPLEMENTED")
    for body in ({"scope": "a b"}, {"scope": ""}, {"scope": "x", "initial_manage_principal": "bob"}):
        assert await refused(world, "POST", "/scopes/create", body) == (400, "INVALID_PARAMETER_VALUE")
    assert await refused(world, "GET", "/get?scope=prod") == (400, "INVALID_PARAMETER_VALUE")


async def test_a_scope_belongs_to_its_creator_until_they_grant_something(world: World):
    await ok(world, "POST", "/scopes/create", {"scope": "anns"}, ANN)
    await ok(world, "POST", "/put", {"scope": "anns", "key": "k", "string_value": "v"}, ANN)
    denied = (403, "PERMISSION_DENIED")
    assert await refused(world, "GET", "/get?scope=anns&key=k", caller=BOB) == denied
    assert await refused(world, "GET", "/get?scope=anns&key=no-such-key", caller=BOB) == denied
    assert await ok(world, "GET", "/scopes/list", caller=BOB) == {"scopes": []}
    bob = {"scope": "anns", "principal": "bob"}
    await ok(world, "POST", "/acls/put", bob | {"permission": "READ"}, ANN)
    assert (await ok(world, "GET", "/get?scope=anns&key=k", caller=BOB))["key"] == "k"
    assert (
        await refused(world, "POST", "/put", {"scope": "anns", "key": "k", "string_value": "w"}, BOB)
        == denied
    )
    await ok(world, "POST", "/acls/put", bob | {"permission": "WRITE"}, ANN)
    await ok(world, "POST", "/put", {"scope": "anns", "key": "k", "string_value": "w"}, BOB)
    assert await refused(world, "GET", "/acls/list?scope=anns", caller=BOB) == denied
    assert await refused(world, "POST", "/scopes/delete", {"scope": "anns"}, BOB) == denied

    assert await refused(
        world, "POST", "/acls/put", {"scope": "anns", "principal": "nobody", "permission": "READ"}
    ) == (
        400,
        "INVALID_PARAMETER_VALUE",
    )
    items = ListAclsResponse.from_dict(await ok(world, "GET", "/acls/list?scope=anns", caller=ANN)).items
    assert items == [
        AclItem(principal="ann", permission=AclPermission.MANAGE),
        AclItem(principal="bob", permission=AclPermission.WRITE),
    ]
    got = AclItem.from_dict(await ok(world, "GET", "/acls/get?scope=anns&principal=bob", caller=ANN))
    assert got == AclItem(principal="bob", permission=AclPermission.WRITE)
    await ok(world, "POST", "/acls/delete", bob, ANN)
    gone = (404, "RESOURCE_DOES_NOT_EXIST")
    assert await refused(world, "POST", "/acls/delete", bob, ANN) == gone
    assert await refused(world, "GET", "/acls/get?scope=anns&principal=bob", caller=ANN) == gone
    assert await refused(world, "GET", "/get?scope=anns&key=k", caller=BOB) == denied
    assert await refused(world, "POST", "/acls/put", bob | {"permission": "OWN"}, ANN) == (
        400,
        "INVALID_PARAMETER_VALUE",
    )
    # An administrator of the workspace may do everything in it, and nothing in another one.
    await ok(world, "POST", "/acls/put", bob | {"permission": "READ"}, ADMIN)
    assert await refused(world, "GET", "/get?scope=anns&key=k", caller=ELSEWHERE) == gone
    await ok(world, "POST", "/scopes/create", {"scope": "anns"}, ELSEWHERE)
    assert await ok(world, "GET", "/list?scope=anns", caller=ELSEWHERE) == {"secrets": []}


async def test_a_scope_can_be_everyones(world: World):
    body = {"scope": "ours", "initial_manage_principal": "users"}
    await ok(world, "POST", "/scopes/create", body, ANN)
    await ok(world, "POST", "/put", {"scope": "ours", "key": "k", "string_value": "v"}, BOB)
    assert await ok(world, "GET", "/acls/list?scope=ours", caller=BOB) == {
        "items": [{"principal": "users", "permission": "MANAGE"}]
    }


async def test_a_full_scope_and_a_full_workspace_say_so(world: World, postgres_url: str):
    await put(world)
    database = await asyncpg.connect(postgres_url)
    await database.execute(
        """INSERT INTO secrets (workspace_id, scope, key, sealed)
           SELECT '1', 'prod', 'k' || n, '' FROM generate_series(2, 1000) AS n"""
    )
    await database.execute(
        "INSERT INTO secret_scopes (workspace_id, name) SELECT '1', 's' || n FROM generate_series(2, 1000) AS n"
    )
    await database.close()
    new = {"scope": "prod", "key": "new", "string_value": "v"}
    assert await refused(world, "POST", "/put", new) == (400, "BAD_REQUEST")
    await ok(world, "POST", "/put", new | {"key": "key"})
    assert await refused(world, "POST", "/scopes/create", {"scope": "new"}) == (400, "BAD_REQUEST")
    await ok(world, "POST", "/scopes/create", {"scope": "new"}, ELSEWHERE)


async def test_a_reference_is_resolved_for_builder_and_replica_and_stays_a_reference_elsewhere(
    world: World, postgres_url: str
):
    await put(world)
    created = await world.ok("POST", "", {"name": "iris", "config": asking()})
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")
    resolved = {"KEY": SECRET, "PLAIN": "as it is"}
    [launch] = world.worker.launches.values()
    assert launch.environment_vars == resolved
    [served] = created["pending_config"]["served_entities"]
    assert await environment_of(world, served["id"]) == resolved

    got = await world.ok("GET", "/iris")
    [served] = got["config"]["served_entities"]
    assert served["environment_vars"] == {"KEY": "{{secrets/prod/key}}", "PLAIN": "as it is"}
    assert SECRET not in json.dumps([created, got])
    assert SECRET not in "".join(order.model_dump_json() for order in world.builder.orders)
    assert SECRET not in "".join(route.model_dump_json() for route in world.gateway.history)
    assert await everything_readable_in(postgres_url, SECRET) == []


async def test_a_reference_to_what_the_caller_may_not_read_is_refused(world: World):
    await put(world)
    for reference, reason in (
        ("{{secrets/none/key}}", "Scope none does not exist"),
        ("{{secrets/prod/none}}", "Secret 'none' does not exist in scope 'prod'"),
    ):
        status, code, message = await world.refused("POST", "", {"name": "iris", "config": asking(reference)})
        assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
        assert "'KEY'" in message
        assert reason in message
    refusal = await world.gateway.call(
        "POST", "", json.dumps({"name": "x", "config": asking()}), identity=ANN
    )
    error = json.loads(refusal.body)
    assert (refusal.status, error["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert "'KEY'" in error["message"]
    assert "'ann' does not have READ permission" in error["message"]

    await world.ok("POST", "", {"name": "iris", "config": asking("text with {{secrets/none/key}} in it")})
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")
    status, code, _ = await world.refused("PUT", "/iris/config", asking("{{secrets/none/key}}"))
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")


async def test_values_no_environment_can_hold_are_refused(world: World):
    await put(world, value="x" * (64 * 1024))
    _, _, message = await world.refused("POST", "", {"name": "iris", "config": asking()})
    assert "at most 65536" in message
    binary = base64.b64encode(b"\xff\xfe").decode()
    await ok(world, "POST", "/put", {"scope": "prod", "key": "key", "bytes_value": binary})
    _, _, message = await world.refused("POST", "", {"name": "iris", "config": asking()})
    assert "'KEY'" in message
    assert "not text" in message


async def test_a_rotated_secret_reaches_new_replicas_and_a_vanished_one_leaves_the_others_running(
    world: World,
):
    await put(world)
    await world.ok("POST", "", {"name": "iris", "config": asking(workload_size="Medium")})
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")
    before = set(world.worker.replicas)
    await ok(world, "POST", "/delete", {"scope": "prod", "key": "key"})
    lost = min(before)
    assert len(before) == 2
    del world.worker.replicas[lost]

    async def message() -> str:
        [served] = (await world.ok("GET", "/iris"))["config"]["served_entities"]
        return served["state"]["deployment_state_message"]

    async def says_which() -> bool:
        said = await message()
        return "'KEY'" in said and "does not exist in scope 'prod'" in said

    await world.until(says_which)
    assert set(world.worker.replicas) == before - {lost}
    assert (await world.state("iris"))[0] == "READY"

    await put(world, value="rotated")
    await world.until(lambda: len(world.worker.replicas) == len(before))

    async def says_nothing() -> bool:
        return await message() == ""

    await world.until(says_nothing)
    given = sorted(
        world.worker.launches[replica].environment_vars["KEY"] for replica in world.worker.replicas
    )
    assert given == [SECRET, "rotated"]


async def test_a_creator_who_lost_the_permission_cannot_start_the_model(world: World):
    await put(world)
    await ok(world, "POST", "/acls/put", {"scope": "prod", "principal": "ann", "permission": "READ"})
    world.builder.hold.clear()
    body = json.dumps({"name": "iris", "config": asking()})
    created = json.loads((await world.gateway.call("POST", "", body, identity=ANN)).body)
    [served] = created["pending_config"]["served_entities"]
    assert (await environment_of(world, served["id"]))["KEY"] == SECRET
    await ok(world, "POST", "/acls/delete", {"scope": "prod", "principal": "ann"})
    try:
        await environment_of(world, served["id"])
    except InvalidParameter as error:
        refusal = error.message
    else:
        raise AssertionError("the value was given away")
    assert "'KEY'" in refusal
    world.builder.hold.set()

    async def says_why() -> bool:
        [entity] = (await world.ok("GET", "/iris"))["pending_config"]["served_entities"]
        return "'ann' does not have READ permission" in entity["state"]["deployment_state_message"]

    await world.until(says_why)
    assert world.worker.replicas == {}


async def test_a_model_gets_no_secrets_by_its_creators_name(world: World, postgres_url: str):
    await put(world)
    acl = {"scope": "prod", "principal": "bob", "permission": "READ"}
    await ok(world, "POST", "/acls/put", acl)
    world.builder.hold.clear()
    body = json.dumps({"name": "iris", "config": asking()})
    created = json.loads((await world.gateway.call("POST", "", body, identity=BOB)).body)
    [served] = created["pending_config"]["served_entities"]
    assert (await environment_of(world, served["id"]))["KEY"] == SECRET
    database = await asyncpg.connect(postgres_url)
    await database.execute("DELETE FROM principals WHERE name = 'bob'")
    await database.execute(
        "INSERT INTO principals (id, workspace_id, kind, name) VALUES ($1, '1', 'user', 'bob')", "d" * 32
    )
    await database.close()
    await ok(world, "POST", "/acls/put", acl)
    with pytest.raises(InvalidParameter, match="'bob', who created the served entity, is no longer a member"):
        await environment_of(world, served["id"])


async def test_a_grant_goes_with_its_principal_and_not_with_the_name(world: World, postgres_url: str):
    await put(world)
    for principal in ("BOB", "data"):
        acl = {"scope": "prod", "principal": principal, "permission": "READ"}
        await ok(world, "POST", "/acls/put", acl)
    assert (await ok(world, "GET", "/get?scope=prod&key=key", caller=ANN))["key"] == "key"
    database = await asyncpg.connect(postgres_url)
    await database.execute("UPDATE groups SET name = 'analysts' WHERE name = 'data'")
    await database.execute("DELETE FROM principals WHERE name = 'bob'")
    await database.execute(
        "INSERT INTO principals (id, workspace_id, kind, name) VALUES ($1, '1', 'user', 'bob')",
        BOB.principal_id,
    )
    await database.close()
    assert (await ok(world, "GET", "/get?scope=prod&key=key", caller=ANN))["key"] == "key"
    assert await refused(world, "GET", "/get?scope=prod&key=key", caller=BOB) == (403, "PERMISSION_DENIED")
    items = (await ok(world, "GET", "/acls/list?scope=prod"))["items"]
    assert [item["principal"] for item in items] == ["admin", "analysts"]


async def test_of_a_user_and_a_group_of_one_name_every_acl_call_means_the_user(
    world: World, postgres_url: str
):
    await put(world)
    acl = {"scope": "prod", "principal": "data"}
    await ok(world, "POST", "/acls/put", acl | {"permission": "READ"})  # the group: there is no such user yet
    database = await asyncpg.connect(postgres_url)
    await database.execute(
        "INSERT INTO principals (id, workspace_id, kind, name) VALUES ($1, '1', 'user', 'Data')", "d" * 32
    )
    await database.close()
    get = "/acls/get?scope=prod&principal=data"
    gone = (404, "RESOURCE_DOES_NOT_EXIST")
    assert await refused(world, "GET", get) == gone
    assert await refused(world, "POST", "/acls/delete", acl) == gone
    await ok(world, "POST", "/acls/put", acl | {"permission": "WRITE"})
    assert await ok(world, "GET", get) == {"principal": "Data", "permission": "WRITE"}
    await ok(world, "POST", "/acls/delete", acl)
    assert await refused(world, "GET", get) == gone
    assert (await ok(world, "GET", "/get?scope=prod&key=key", caller=ANN))["key"] == "key"


async def everything_readable_in(postgres_url: str, text: str) -> list[str]:
    """Tables with a row in which the text, in plain or Base64 or hexadecimal form, can be read."""
    database = await asyncpg.connect(postgres_url)
    forms = [text, base64.b64encode(text.encode()).decode().rstrip("="), text.encode().hex()]
    tables = await database.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    found: list[str] = []
    for table in [row["tablename"] for row in tables]:
        rows = await database.fetch(f'SELECT t::text AS row FROM "{table}" t')
        found += [table for row in rows if any(form in row["row"] for form in forms)]
    assert len(tables) > 8
    await database.close()
    return found
