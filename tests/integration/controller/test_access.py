"""Who may call: the directory, tokens, OAuth and workspaces, and what gateways are told of them."""

import asyncio
import json
from typing import Any

import asyncpg
import jwt
import pytest
from tests.integration.controller.conftest import World
from tests.integration.controller.peers import ADMIN, entity

from servery_common.access_tokens import fingerprint, is_well_formed
from servery_common.contracts import subjects
from servery_common.contracts.access import (
    Identity,
    IssueModelToken,
    IssueToken,
    ModelTokenIssued,
    TokenGrant,
    TokenIssued,
)
from servery_common.errors import InvalidParameter, NotFound, Unauthenticated

SCIM = "/api/2.0/preview/scim/v2"
TOKENS = "/api/2.0/token"
WORKSPACES = "/api/2.0/servery/workspaces"


async def group_id(world: World, name: str, admin: Identity = ADMIN) -> str:
    path = f"{SCIM}/Groups?filter=displayName+eq+%22{name}%22"
    return (await world.ok("GET", path, identity=admin))["Resources"][0]["id"]


async def user_id(world: World, name: str, admin: Identity = ADMIN) -> str:
    path = f"{SCIM}/Users?filter=userName+eq+%22{name}%22"
    return (await world.ok("GET", path, identity=admin))["Resources"][0]["id"]


async def patch(world: World, path: str, *operations: dict[str, Any], admin: Identity = ADMIN) -> Any:
    return await world.ok("PATCH", f"{SCIM}{path}", {"Operations": list(operations)}, identity=admin)


async def new_service_principal(world: World, name: str) -> tuple[str, str]:
    made = await world.ok("POST", f"{SCIM}/ServicePrincipals", {"displayName": name})
    return made["id"], made["applicationId"]


def secrets_of(number: str) -> str:
    return f"/api/2.0/accounts/servicePrincipals/{number}/credentials/secrets"


async def oauth_token(world: World, client_id: str, secret: str, scope: str = "all-apis") -> TokenIssued:
    request = IssueToken(client_id=client_id, client_secret=secret, scope=scope)
    return await world.gateway.bus.request(subjects.controller_issue_token(), request, TokenIssued, timeout=5)


def claims_of(world: World, token: str) -> dict[str, Any]:
    """Check a JWT as a gateway does, with the published key it names."""
    key = world.gateway.keys[jwt.get_unverified_header(token)["kid"]]
    return jwt.decode(token, key.public_key, algorithms=["EdDSA"], audience="servery")


async def test_the_bootstrap_administrator_is_published_before_anything_is_answered(world: World):
    identity = await world.sign_in("dapi-test")
    assert (identity.user_name, identity.admin, identity.operator) == ("admin", True, True)
    assert set(identity.groups) == {"admins", "users"}
    assert fingerprint(b"dapi-test") in world.gateway.tokens


async def test_a_token_is_shown_once_works_at_once_and_ends_when_it_is_revoked(world: World):
    made = await world.ok("POST", f"{TOKENS}/create", {"comment": "laptop", "lifetime_seconds": 3600})
    value, info = made["token_value"], made["token_info"]
    assert is_well_formed(value.encode())
    assert info["expiry_time"] - info["creation_time"] == 3_600_000
    assert (await world.sign_in(value)).user_name == "admin"
    listed = await world.ok("GET", f"{TOKENS}/list")
    assert listed == {"token_infos": [info]}
    await world.until(lambda: fingerprint(value.encode()) in world.gateway.tokens)

    await world.ok("POST", f"{TOKENS}/delete", {"token_id": info["token_id"]})
    assert (await world.find_token(value)).grant is None
    await world.until(lambda: fingerprint(value.encode()) not in world.gateway.tokens)
    again = await world.refused("POST", f"{TOKENS}/delete", {"token_id": info["token_id"]})
    assert again[:2] == (404, "RESOURCE_DOES_NOT_EXIST")


async def test_a_token_without_a_lifetime_does_not_expire(world: World):
    made = await world.ok("POST", f"{TOKENS}/create")
    assert made["token_info"]["expiry_time"] == -1
    assert made["token_info"]["comment"] == ""


@pytest.mark.parametrize("seconds", [0, -1, 10**12, True])
async def test_a_lifetime_that_is_none_is_refused(world: World, seconds: int):
    refused = await world.refused("POST", f"{TOKENS}/create", {"lifetime_seconds": seconds})
    assert refused[:2] == (400, "INVALID_PARAMETER_VALUE")


async def test_an_expired_token_is_withdrawn_from_gateways(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SERVERY_ACCESS_REPAIR_SECONDS", "0.2")
    await world.crash_controller()
    await world.start_controller()
    value = (await world.ok("POST", f"{TOKENS}/create", {"lifetime_seconds": 3600}))["token_value"]
    sha256 = fingerprint(value.encode())
    await world.until(lambda: sha256 in world.gateway.tokens)
    database = await asyncpg.connect(world.postgres_url)
    await database.execute("UPDATE access_tokens SET expires_at = now() WHERE sha256 = $1", sha256)
    await database.close()
    await world.until(lambda: sha256 not in world.gateway.tokens)
    assert (await world.find_token(value)).grant is None


async def test_users_manage_their_own_tokens_and_administrators_all(world: World):
    ann = await world.new_user("ann")
    made = await world.ok("POST", f"{TOKENS}/create", {"comment": "ann's"}, identity=ann)
    token_id = made["token_info"]["token_id"]
    assert (await world.ok("GET", f"{TOKENS}/list"))["token_infos"] == []
    manage = "/api/2.0/token-management/tokens"
    assert (await world.refused("GET", manage, identity=ann))[0] == 403
    [info] = (await world.ok("GET", manage))["token_infos"]
    assert (info["token_id"], info["created_by_username"]) == (token_id, "ann")
    assert (await world.ok("GET", f"{manage}/{token_id}"))["token_info"] == info
    assert (await world.ok("GET", f"{manage}?created_by_username=bob"))["token_infos"] == []
    await world.ok("DELETE", f"{manage}/{token_id}")
    assert (await world.find_token(made["token_value"])).grant is None


async def test_groups_reach_gateways_resolved_through_other_groups(world: World):
    ann = await world.new_user("ann", "inner")
    inner = await group_id(world, "inner")
    outer = await world.ok("POST", f"{SCIM}/Groups", {"displayName": "outer", "members": [{"value": inner}]})
    await world.until(lambda: "outer" in world.gateway.identities[ann.principal_id].groups)
    assert world.gateway.identities[ann.principal_id].groups == ("inner", "outer", "users")

    inside = {"op": "add", "path": "members", "value": [{"value": outer["id"]}]}
    assert await world.refused("PATCH", f"{SCIM}/Groups/{inner}", {"Operations": [inside]}) == (
        400,
        "INVALID_PARAMETER_VALUE",
        "Groups may not contain each other: one of the members contains the group.",
    )
    await world.ok("DELETE", f"{SCIM}/Groups/{outer['id']}")
    await world.until(lambda: world.gateway.identities[ann.principal_id].groups == ("inner", "users"))


async def test_whoever_is_deactivated_can_do_nothing_even_before_the_gateway_knows(world: World):
    ann = await world.new_user("ann")
    token = (await world.ok("POST", f"{TOKENS}/create", identity=ann))["token_value"]
    number = await user_id(world, "ann")
    await patch(world, f"/Users/{number}", {"op": "replace", "path": "active", "value": "false"})
    assert (await world.refused("GET", f"{SCIM}/Me", identity=ann))[:2] == (401, "UNAUTHENTICATED")
    assert (await world.find_token(token)).identity is None
    await world.until(lambda: ann.principal_id not in world.gateway.identities)

    await patch(world, f"/Users/{number}", {"op": "replace", "value": {"active": True}})
    await world.until(lambda: ann.principal_id in world.gateway.identities)
    assert (await world.sign_in(token)).user_name == "ann"


async def test_a_demoted_administrator_loses_the_right_before_the_gateway_knows(world: World):
    ann = await world.new_user("ann", "admins")
    await world.ok("POST", f"{SCIM}/Groups", {"displayName": "made-by-ann"}, identity=ann)
    admins, number = await group_id(world, "admins"), await user_id(world, "ann")
    await patch(world, f"/Groups/{admins}", {"op": "remove", "path": f'members[value eq "{number}"]'})
    assert ann.admin, "what the gateway sends is what it knew before"
    refused = await world.refused("POST", f"{SCIM}/Groups", {"displayName": "x"}, identity=ann)
    assert refused[:2] == (403, "PERMISSION_DENIED")


async def test_the_last_administrator_stays(world: World):
    other = await world.new_workspace("other")
    admins = await group_id(world, "admins", other)
    number = await user_id(world, other.user_name, other)
    leave = {"op": "remove", "path": "members", "value": [{"value": number}]}
    for method, path, body in (
        ("PATCH", f"/Groups/{admins}", {"Operations": [leave]}),
        ("PATCH", f"/Users/{number}", {"Operations": [{"op": "replace", "value": {"active": False}}]}),
        ("DELETE", f"/Users/{number}", None),
        ("PUT", f"/Groups/{admins}", {"displayName": "admins"}),
    ):
        code, _, message = await world.refused(method, f"{SCIM}{path}", body, identity=other)
        assert (code, "without an administrator" in message) == (400, True), (method, path, message)

    await world.new_user("second", "admins", admin=other)
    await world.ok("DELETE", f"{SCIM}/Users/{number}", identity=other)
    await world.until(lambda: other.principal_id not in world.gateway.identities)


async def test_the_operator_is_neither_deleted_nor_deactivated(world: World):
    ann = await world.new_user("ann", "admins")
    number = await user_id(world, "admin")
    refused = await world.refused("DELETE", f"{SCIM}/Users/{number}", identity=ann)
    assert refused[:2] == (403, "PERMISSION_DENIED")
    assert "SERVERY_ADMIN_USER" in refused[2]


async def test_only_administrators_write_and_everybody_reads(world: World):
    ann = await world.new_user("ann")
    for path in ("Users", "Groups", "ServicePrincipals"):
        await world.ok("GET", f"{SCIM}/{path}", identity=ann)
        body = {"userName": "x", "displayName": "x"}
        assert (await world.refused("POST", f"{SCIM}/{path}", body, identity=ann))[0] == 403
    me = await world.ok("GET", f"{SCIM}/Me", identity=ann)
    assert (me["userName"], [group["display"] for group in me["groups"]]) == ("ann", ["users"])


async def test_system_groups_are_neither_renamed_nor_deleted(world: World):
    for name in ("admins", "users"):
        number = await group_id(world, name)
        assert (await world.refused("DELETE", f"{SCIM}/Groups/{number}"))[0] == 400
        rename = {"op": "replace", "path": "displayName", "value": "x"}
        refused = await world.refused("PATCH", f"{SCIM}/Groups/{number}", {"Operations": [rename]})
        assert refused[0] == 400


async def test_names_are_unique_without_regard_to_case(world: World):
    await world.new_user("ann")
    assert (await world.refused("POST", f"{SCIM}/Users", {"userName": "ANN"}))[1] == "RESOURCE_ALREADY_EXISTS"
    assert (await world.refused("POST", f"{SCIM}/Groups", {"displayName": "Admins"}))[
        1
    ] == "RESOURCE_ALREADY_EXISTS"


async def test_lists_are_filtered_and_come_in_pages(world: World):
    for name in ("ann", "bob", "cid"):
        await world.new_user(name)
    page = await world.ok("GET", f"{SCIM}/Users?startIndex=2&count=2&attributes=userName")
    assert (page["totalResults"], page["startIndex"], page["itemsPerPage"]) == (4, 2, 2)
    assert [user["userName"] for user in page["Resources"]] == ["ann", "bob"]
    assert set(page["Resources"][0]) == {"schemas", "id", "userName"}
    assert (await world.ok("GET", f"{SCIM}/Users?startIndex=5"))["Resources"] == []
    refused = await world.refused("GET", f"{SCIM}/Users?filter=shoeSize+eq+%2246%22")
    assert refused[:2] == (400, "INVALID_PARAMETER_VALUE")


async def test_a_workspace_is_closed_to_others(world: World):
    other = await world.new_workspace("other")
    ann = await user_id(world, (await world.new_user("ann")).user_name)
    assert (await world.refused("GET", f"{SCIM}/Users/{ann}", identity=other))[0] == 404
    assert (await world.refused("DELETE", f"{SCIM}/Users/{ann}", identity=other))[0] == 404
    body = {"displayName": "mine", "members": [{"value": ann}]}
    assert (await world.refused("POST", f"{SCIM}/Groups", body, identity=other))[0] == 400
    names = [u["userName"] for u in (await world.ok("GET", f"{SCIM}/Users", identity=other))["Resources"]]
    assert names == ["admin-of-other"]
    assert (await world.refused("GET", WORKSPACES, identity=other))[:2] == (403, "PERMISSION_DENIED")


async def test_a_workspace_is_deleted_with_everybody_in_it_once_it_is_empty(world: World):
    other = await world.new_workspace("other")
    await world.ok("POST", "", {"name": "iris"}, identity=other)
    path = f"{WORKSPACES}/{other.workspace_id}"
    assert (await world.ok("GET", path))["name"] == "other"
    assert "1 endpoints" in (await world.refused("DELETE", path))[2]
    await world.ok("DELETE", "/iris", identity=other)

    async def deleted() -> bool:
        return (await world.gateway.call("DELETE", path)).status == 200

    await world.until(deleted)
    await world.until(lambda: other.principal_id not in world.gateway.identities)
    assert (await world.refused("GET", f"{SCIM}/Me", identity=other))[0] == 401
    assert [w["workspace_id"] for w in (await world.ok("GET", WORKSPACES))["workspaces"]] == ["1"]
    assert (await world.refused("DELETE", f"{WORKSPACES}/1"))[0] == 400


async def test_a_workspace_of_another_region_may_not_have_endpoints(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SERVERY_SERVED_REGIONS", "eu-west-1, eu-central-1")
    await world.crash_controller()
    await world.start_controller()
    far = await world.new_workspace("far", region="us-east-1")
    near = await world.new_workspace("near", region="eu-central-1")
    assert (far.supported, near.supported) == (False, True)
    code, error_code, message = await world.refused("GET", "", identity=far)
    assert (code, error_code) == (400, "BAD_REQUEST")
    assert message.startswith("Your workspace is not currently supported. ")
    await world.ok("GET", f"{SCIM}/Me", identity=far)
    await world.ok("GET", "", identity=near)
    await world.ok("GET", "")


async def test_a_service_principal_buys_tokens_with_its_secret(world: World):
    number, application_id = await new_service_principal(world, "ci")
    made = await world.ok("POST", secrets_of(number), {"lifetime": "3600s"})
    assert made["secret"].startswith("dose")
    [listed] = (await world.ok("GET", secrets_of(number)))["secrets"]
    assert listed == {key: value for key, value in made.items() if key != "secret"}

    for client_id in (application_id, number):
        issued = await oauth_token(world, client_id, made["secret"])
        claims = claims_of(world, issued.access_token)
        identity = world.gateway.identities[claims["sub"]]
        assert (identity.user_name, identity.kind) == (application_id, "service_principal")
        assert (issued.expires_in, claims["exp"] - claims["iat"]) == (3600, 3600)
        assert (issued.scope, claims["scope"]) == ("all-apis", "all-apis")

    for client_id, secret in ((application_id, "dose" + "0" * 32), ("nobody\0", made["secret"])):
        with pytest.raises(Unauthenticated):
            await oauth_token(world, client_id, secret)
    with pytest.raises(InvalidParameter, match="sql"):
        await oauth_token(world, application_id, made["secret"], "sql")
    await world.ok("DELETE", f"{secrets_of(number)}/{made['id']}")
    with pytest.raises(Unauthenticated):
        await oauth_token(world, application_id, made["secret"])


async def test_a_deactivated_service_principal_buys_nothing(world: World):
    number, application_id = await new_service_principal(world, "ci")
    secret = (await world.ok("POST", secrets_of(number)))["secret"]
    await patch(world, f"/ServicePrincipals/{number}", {"op": "replace", "value": {"active": False}})
    with pytest.raises(Unauthenticated):
        await oauth_token(world, application_id, secret)


async def test_an_administrator_makes_a_token_for_a_service_principal(world: World):
    _, application_id = await new_service_principal(world, "ci")
    made = await world.ok(
        "POST", "/api/2.0/token-management/on-behalf-of/tokens", {"application_id": application_id}
    )
    robot = await world.sign_in(made["token_value"])
    assert (robot.user_name, robot.kind) == (application_id, "service_principal")
    endpoint = await world.ok("POST", "", {"name": "iris"}, identity=robot)
    assert endpoint["creator"] == application_id
    assert (endpoint["creator_kind"], endpoint["creator_display_name"]) == ("ServicePrincipal", "ci")
    assert (await world.ok("POST", "", {"name": "digits"}))["creator_kind"] == "User"


async def test_a_model_acts_as_the_creator_of_its_served_entity(world: World):
    ann = await world.new_user("ann")
    made = await world.ok(
        "POST", "", {"name": "iris", "config": {"served_entities": [entity()]}}, identity=ann
    )
    served = made["pending_config"]["served_entities"][0]["id"]

    async def model_token() -> ModelTokenIssued:
        return await world.gateway.bus.request(
            subjects.controller_issue_model_token(),
            IssueModelToken(served_entity_id=served),
            ModelTokenIssued,
            timeout=5,
        )

    issued = await model_token()
    claims = claims_of(world, issued.token)
    assert (claims["sub"], claims["endpoint_id"]) == (ann.principal_id, made["id"])
    assert claims["scope"] == "model"
    assert claims["exp"] * 1000 == issued.expires_at_ms
    await world.ok("DELETE", f"{SCIM}/Users/{await user_id(world, 'ann')}")
    with pytest.raises(NotFound, match="ann"):
        await model_token()


async def test_a_model_does_not_act_as_somebody_who_was_given_its_creators_name(world: World):
    first = await world.new_user("ann")
    made = await world.ok(
        "POST", "", {"name": "iris", "config": {"served_entities": [entity()]}}, identity=first
    )
    served = made["pending_config"]["served_entities"][0]["id"]
    await world.ok("DELETE", f"{SCIM}/Users/{await user_id(world, 'ann')}")
    await world.until(lambda: world.gateway.identity("1", "ann") is None)
    await world.new_user("ann", "admins")
    request = IssueModelToken(served_entity_id=served)
    with pytest.raises(NotFound, match="'ann', was deleted"):
        await world.gateway.bus.request(
            subjects.controller_issue_model_token(), request, ModelTokenIssued, timeout=5
        )


async def test_a_model_served_before_there_were_principals_acts_as_the_administrator_of_the_settings(
    world: World,
):
    made = await world.ok("POST", "", {"name": "iris", "config": {"served_entities": [entity()]}})
    served = made["pending_config"]["served_entities"][0]["id"]
    await world.crash_controller()
    database = await asyncpg.connect(world.postgres_url)
    await database.execute("UPDATE served_entities SET creator_id = NULL")
    await database.close()
    await world.start_controller()
    issued = await world.gateway.bus.request(
        subjects.controller_issue_model_token(),
        IssueModelToken(served_entity_id=served),
        ModelTokenIssued,
        timeout=5,
    )
    assert claims_of(world, issued.token)["sub"] == ADMIN.principal_id


async def test_a_models_token_reads_and_changes_nothing(world: World):
    secrets = "/api/2.0/secrets"
    await world.ok("POST", "", {"name": "iris"})
    await world.ok("POST", f"{secrets}/scopes/create", {"scope": "s"})
    await world.ok("POST", f"{secrets}/put", {"scope": "s", "key": "k", "string_value": "v"})
    number, _ = await new_service_principal(world, "ci")
    me = (await world.ok("GET", f"{SCIM}/Me"))["id"]
    for path in ("", "/iris", f"{SCIM}/Me", f"{secrets}/get?scope=s&key=k"):
        answer = await world.gateway.call("GET", path, scope="model")
        assert answer.status == 200, (path, answer.body)

    config = {"served_entities": [entity()]}
    grant = {"access_control_list": [{"user_name": "admin", "permission_level": "CAN_MANAGE"}]}
    iris = (await world.ok("GET", "/iris"))["id"]
    for method, path, body in (
        ("POST", "", {"name": "digits", "config": config}),
        ("PUT", "/iris/config", config),
        ("DELETE", "/iris", None),
        ("PATCH", f"/api/2.0/permissions/serving-endpoints/{iris}", grant),
        ("POST", f"{TOKENS}/create", {}),
        ("POST", f"{SCIM}/Users", {"userName": "eve"}),
        ("DELETE", f"{SCIM}/Users/{me}", None),
        ("POST", secrets_of(number), {}),
        ("POST", WORKSPACES, {"name": "mine", "admin_user": "eve"}),
        ("POST", f"{secrets}/put", {"scope": "s", "key": "k", "string_value": "other"}),
        ("POST", f"{secrets}/acls/put", {"scope": "s", "principal": "users", "permission": "READ"}),
    ):
        answer = await world.gateway.call(method, path, json.dumps(body or {}), scope="model")
        assert (answer.status, json.loads(answer.body)["error_code"]) == (403, "PERMISSION_DENIED"), path
    assert [e["name"] for e in (await world.ok("GET", ""))["endpoints"]] == ["iris"]
    assert (await world.ok("GET", f"{TOKENS}/list"))["token_infos"] == []


async def test_requests_at_once_make_no_more_secrets_than_there_may_be(world: World):
    number, _ = await new_service_principal(world, "ci")
    calls = [world.gateway.call("POST", secrets_of(number), "{}") for _ in range(12)]
    statuses = sorted(answer.status for answer in await asyncio.gather(*calls))
    assert statuses == [200] * 5 + [400] * 7
    assert len((await world.ok("GET", secrets_of(number)))["secrets"]) == 5


async def test_requests_at_once_make_no_more_tokens_than_there_may_be(world: World):
    database = await asyncpg.connect(world.postgres_url)
    await database.execute(
        """INSERT INTO access_tokens (id, sha256, principal_id, created_by_id)
           SELECT 'id' || n, 'hash' || n, $1, $1 FROM generate_series(1, 597) n""",
        ADMIN.principal_id,
    )
    await database.close()
    calls = [world.gateway.call("POST", f"{TOKENS}/create", "{}") for _ in range(8)]
    statuses = sorted(answer.status for answer in await asyncio.gather(*calls))
    assert statuses == [200] * 2 + [400] * 6  # the token of the settings is the 598th


async def test_what_others_wrote_into_the_buckets_is_put_right(world: World):
    ann = await world.new_user("ann")
    forged = TokenGrant(token_sha256="f" * 64, principal_id=ann.principal_id)
    await world.gateway.bus.kv_put(subjects.TOKENS_BUCKET, forged.token_sha256, forged)
    promoted = ann.model_copy(update={"admin": True, "operator": True})
    await world.gateway.bus.kv_put(subjects.PRINCIPALS_BUCKET, ann.principal_id, promoted)
    await world.until(lambda: world.gateway.identities[ann.principal_id] == ann)
    await world.until(lambda: forged.token_sha256 not in world.gateway.tokens)
    await world.gateway.bus.kv_delete(subjects.PRINCIPALS_BUCKET, ann.principal_id)
    await world.until(lambda: ann.principal_id in world.gateway.identities)


async def test_gateways_know_everybody_again_after_nats_lost_everything(world: World, own_nats: Any):
    ann = await world.new_user("ann")
    own_nats.restart(lose_data=True)
    world.gateway.identities.clear()
    world.gateway.tokens.clear()
    await world.until(lambda: ann.principal_id in world.gateway.identities)
    await world.until(lambda: fingerprint(b"dapi-test") in world.gateway.tokens)
    await world.until(lambda: world.gateway.keys)


async def test_the_directory_outlives_a_restart_and_another_bootstrap_token(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    ann = await world.new_user("ann")
    token = (await world.ok("POST", f"{TOKENS}/create", identity=ann))["token_value"]
    await world.crash_controller()
    monkeypatch.setenv("SERVERY_ADMIN_TOKEN", "dapi-other")
    monkeypatch.setenv("SERVERY_ADMIN_USER", "root")
    await world.start_controller()
    assert (await world.sign_in(token)) == ann
    assert (await world.sign_in("dapi-other")).user_name == "root"
    assert (await world.find_token("dapi-test")).grant is None
    await world.until(lambda: fingerprint(b"dapi-test") not in world.gateway.tokens)
