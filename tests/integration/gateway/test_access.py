"""Who may call: new tokens, signed tokens, OAuth, permissions and rate limits; the test plays the controller."""

import asyncio
import base64

import httpx
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import PermissionDenied
from tests.integration.gateway.conftest import World, eventually
from tests.integration.gateway.peers import endpoint, entity, grant, identity
from tests.unit.gateway.signing import Signer

from servery_common import access_tokens
from servery_common.contracts import subjects
from servery_common.contracts.access import FindToken, IssueToken, TokenFound, TokenIssued
from servery_common.contracts.management import HttpAnswer, HttpCall
from servery_common.contracts.routes import EndpointRoute, RateLimit
from servery_common.errors import Unauthenticated

PROGRAM = identity("4f1c", kind="service_principal", groups=("robots",))
FORM = {"grant_type": "client_credentials", "scope": "all-apis"}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def sign(world: World) -> Signer:
    """A key the gateway knows."""
    signer = Signer()
    await world.bus.kv_put(subjects.SIGNING_KEYS_BUCKET, signer.key.key_id, signer.key)
    await eventually(lambda: world.gateway.table.snapshot.signing_keys.get(signer.key.key_id) == signer.key)
    return signer


async def issue(world: World, signer: Signer) -> list[IssueToken]:
    """The controller's part of OAuth: one client, one secret."""
    asked: list[IssueToken] = []

    async def answer(request: IssueToken) -> TokenIssued:
        asked.append(request)
        if (request.client_id, request.client_secret) != ("4f1c", "s3cret"):
            raise Unauthenticated("Something the client is not told.")
        token = signer.token(PROGRAM.principal_id)
        return TokenIssued(access_token=token, expires_in=3600, scope=request.scope)

    await world.bus.serve(subjects.controller_issue_token(), IssueToken, answer, queue="controller")
    return asked


async def ready_endpoint(world: World, name: str, **fields) -> EndpointRoute:
    replica = await world.replica(f"a{name}".replace("-", ""))
    route = endpoint(name, entity("m-1", replica.route()), **fields)
    await world.publish(route)
    return route


async def test_a_token_works_in_the_request_after_its_creation(world: World) -> None:
    await ready_endpoint(world, "new-token")
    asked: list[str] = []
    brand_new, wrong = access_tokens.generate(), access_tokens.generate()
    new = grant(brand_new)

    async def find(question: FindToken) -> TokenFound:
        asked.append(question.token_sha256)
        return (
            TokenFound(grant=new, identity=identity())
            if question.token_sha256 == new.token_sha256
            else TokenFound()
        )

    await world.bus.serve(subjects.controller_find_token(), FindToken, find, queue="controller")
    for _ in range(3):
        assert (await world.score("new-token", headers=bearer(brand_new))).status_code == 200
        assert (await world.score("new-token", headers=bearer(wrong))).status_code == 401
        assert (await world.score("new-token", headers=bearer("guessed"))).status_code == 401
        assert (await world.score("new-token")).status_code == 200
    assert asked.count(new.token_sha256) >= 1
    assert set(asked) == {new.token_sha256, grant(wrong).token_sha256}, (
        "nobody asks about known or made-up tokens"
    )
    await world.bus.kv_put(subjects.TOKENS_BUCKET, new.token_sha256, new)
    await eventually(lambda: new.token_sha256 in world.gateway.table.snapshot.tokens)
    assert (await world.score("new-token", headers=bearer(brand_new))).status_code == 200


async def test_a_models_token_scores_says_its_scope_to_the_controller_and_ends_with_the_endpoint(
    world: World,
) -> None:
    route = await ready_endpoint(world, "with-a-token", query_grantees=("group:robots",))
    signer = await sign(world)
    await world.admit(PROGRAM)
    scopes: list[str] = []

    async def answer(call: HttpCall) -> HttpAnswer:
        scopes.append(call.scope)
        return HttpAnswer(status=200, body="{}")

    await world.bus.serve(subjects.controller_http(), HttpCall, answer, queue="controller")
    model = bearer(signer.token(PROGRAM.principal_id, scope="model", endpoint_id=route.endpoint_id))
    assert (await world.score("with-a-token", headers=model)).status_code == 200
    for headers in (model, bearer(signer.token(PROGRAM.principal_id))):
        assert (await world.http.get("/api/2.0/serving-endpoints", headers=headers)).status_code == 200
    assert scopes == ["model", "all-apis"]
    await world.bus.kv_delete(subjects.ROUTES_BUCKET, route.endpoint_id)
    await eventually(lambda: route.endpoint_id not in world.gateway.table.snapshot.routes)
    assert (await world.http.get("/api/2.0/serving-endpoints", headers=model)).status_code == 401


async def test_a_signed_token_stands_for_its_principal_while_key_and_principal_are_there(
    world: World,
) -> None:
    await ready_endpoint(world, "signed", query_grantees=("group:robots",))
    signer = await sign(world)
    await world.admit(PROGRAM)
    token = signer.token(PROGRAM.principal_id)
    for headers in (
        bearer(token),
        {"authorization": "Basic " + base64.b64encode(f"token:{token}".encode()).decode()},
    ):
        assert (await world.score("signed", headers=headers)).status_code == 200
    for refused in (
        signer.token(PROGRAM.principal_id, exp=1),
        signer.token("nobody"),
        Signer().token(PROGRAM.principal_id),
        Signer("other").token(PROGRAM.principal_id),
    ):
        assert (await world.score("signed", headers=bearer(refused))).status_code == 401
    await world.bus.kv_delete(subjects.PRINCIPALS_BUCKET, PROGRAM.principal_id)
    await eventually(lambda: PROGRAM.principal_id not in world.gateway.table.snapshot.identities)
    assert (await world.score("signed", headers=bearer(token))).status_code == 401


async def test_the_unmodified_sdk_signs_in_with_a_client_id_and_secret(world: World) -> None:
    await ready_endpoint(world, "m2m", query_grantees=("service_principal:4f1c",))
    await ready_endpoint(world, "not-m2m", query_grantees=("group:humans",))
    await world.admit(PROGRAM)
    asked = await issue(world, await sign(world))
    host = f"http://127.0.0.1:{world.gateway.port}"

    def program():
        client = WorkspaceClient(host=host, client_id="4f1c", client_secret="s3cret")
        assert client.serving_endpoints.query("m2m", inputs=[1]) is not None
        with pytest.raises(PermissionDenied, match="Service principal '4f1c' does not have CAN_QUERY"):
            client.serving_endpoints.query("not-m2m", inputs=[1])

    def wrong_secret():
        client = WorkspaceClient(host=host, client_id="4f1c", client_secret="guessed")
        with pytest.raises(ValueError, match="invalid_client"):
            client.serving_endpoints.query("m2m", inputs=[1])

    await asyncio.to_thread(program)
    assert [(ask.client_id, ask.client_secret, ask.scope) for ask in asked] == [
        ("4f1c", "s3cret", "all-apis")
    ]
    await asyncio.to_thread(wrong_secret)


async def test_the_token_endpoint_speaks_oauth(world: World) -> None:
    async with httpx.AsyncClient(base_url=str(world.http.base_url)) as http:
        for path in ("/oidc/v1/token", "/oidc/v1/token/"):
            away = await http.post(path, data=FORM, auth=("4f1c", "s3cret"))
            assert (away.status_code, away.headers["retry-after"]) == (503, "1")
        await issue(world, Signer())

        async def token() -> httpx.Response:
            # The server may take a moment to believe that the subject, asked about in vain, has a listener.
            while True:
                answer = await http.post("/oidc/v1/token", data=FORM, auth=("4f1c", "s3cret"))
                if answer.status_code != 503:
                    return answer

        issued = await asyncio.wait_for(token(), 10)
        assert issued.status_code == 200, issued.text
        assert issued.headers["cache-control"] == "no-store"
        assert issued.json() == {
            "access_token": issued.json()["access_token"],
            "token_type": "Bearer",
            "expires_in": 3600,
            "scope": "all-apis",
        }
        in_form = await http.post(
            "/oidc/v1/token", data={**FORM, "client_id": "4f1c", "client_secret": "s3cret"}
        )
        assert in_form.status_code == 200, in_form.text
        wrong = await http.post("/oidc/v1/token", data=FORM, auth=("4f1c", "guessed"))
        assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
        assert "not told" not in wrong.text
        too_long = await http.post(
            "/oidc/v1/token", data={**FORM, "x": "y" * 20_000}, auth=("4f1c", "s3cret")
        )
        assert (too_long.status_code, too_long.json()["error"]) == (400, "invalid_request")
        by_get = await http.get("/oidc/v1/token")
        assert (by_get.status_code, by_get.json()["error"]) == (400, "invalid_request")
    assert world.gateway.bodies.held == 0


async def test_what_clients_ask_first_is_answered_without_a_token(world: World) -> None:
    async with httpx.AsyncClient(base_url=str(world.http.base_url)) as http:
        for path in ("/.well-known/databricks-config", "/.well-known/databricks-config/"):
            config = await http.get(path, headers={"x-forwarded-proto": "https"})
            assert config.status_code == 200
            assert config.headers["cache-control"].startswith("public, max-age=")
            assert config.json()["oidc_endpoint"] == f"http://127.0.0.1:{world.gateway.port}/oidc"
            assert config.json()["workspace_id"] == "7"
        head = await http.head("/.well-known/databricks-config")
        assert (head.status_code, head.content) == (200, b"")
        metadata = (await http.get("/oidc/.well-known/oauth-authorization-server")).json()
        assert (await http.get(metadata["jwks_uri"])).status_code == 200
        browser = await http.get(metadata["authorization_endpoint"])
        assert (browser.status_code, browser.json()["error_code"]) == (501, "NOT_IMPLEMENTED")


async def test_a_proxy_that_is_trusted_says_how_clients_came(bare_world: World) -> None:
    await bare_world.start_gateway(trusted_proxies="127.0.0.1")
    config = await bare_world.http.get(
        "/.well-known/databricks-config", headers={"x-forwarded-proto": "https"}
    )
    assert config.json()["oidc_endpoint"].startswith("https://127.0.0.1")


async def test_only_who_was_granted_may_query_and_a_change_holds_at_once(world: World) -> None:
    await ready_endpoint(world, "granted", query_grantees=("user:bob", "group:data"))
    await world.admit(identity("bob"), grant("bobs", "bob"))
    await world.admit(identity("root", admin=True), grant("roots", "root"))
    for token in ("bobs", "roots"):
        assert (await world.score("granted", headers=bearer(token))).status_code == 200
    refused = await world.score("granted")
    assert (refused.status_code, refused.json()["error_code"]) == (403, "PERMISSION_DENIED")
    assert "'ann' does not have CAN_QUERY permission on endpoint 'granted'" in refused.json()["message"]
    assert refused.headers["x-databricks-org-id"] == "7"

    await world.admit(identity(groups=("data",)))
    assert (await world.score("granted")).status_code == 200
    await world.publish(endpoint("granted", entity("m-1"), query_grantees=("user:bob",)))
    assert (await world.score("granted")).status_code == 403


async def test_a_workspace_of_a_region_that_is_not_served_is_told_so(world: World) -> None:
    await ready_endpoint(world, "region")
    await world.admit(identity("far", workspace_id="9", supported=False), grant("fars", "far"))
    answer = await world.score("region", headers=bearer("fars"))
    assert (answer.status_code, answer.json()["error_code"]) == (400, "BAD_REQUEST")
    assert "Your workspace is not currently supported" in answer.json()["message"]


async def test_calls_beyond_the_rate_limit_are_told_when_to_come_back(world: World) -> None:
    limits = (RateLimit(key="user", calls=2), RateLimit(key="endpoint", calls=3))
    await ready_endpoint(world, "limited", query_grantees=("user:ann", "user:bob"), rate_limits=limits)
    await world.admit(identity("bob"), grant("bobs", "bob"))
    assert [(await world.score("limited")).status_code for _ in range(3)] == [200, 200, 429]
    assert (await world.score("limited", headers=bearer("bobs"))).status_code == 200
    refused = await world.score("limited", headers=bearer("bobs"))
    assert (refused.status_code, refused.json()["error_code"]) == (429, "REQUEST_LIMIT_EXCEEDED")
    assert "3 calls per minute" in refused.json()["message"]
    assert 0 < int(refused.headers["retry-after"]) <= 61


async def test_headers_that_name_a_workspace_change_nothing(world: World) -> None:
    await ready_endpoint(world, "named")
    named = {"x-databricks-workspace-id": "9", "x-databricks-org-id": "9", "x-databricks-traffic-id": "t"}
    answer = await world.score("named", headers=named)
    assert (answer.status_code, answer.headers["x-databricks-org-id"]) == (200, "7")
    unknown = await world.http.get("/api/1.0/x", headers=named)
    assert (unknown.status_code, unknown.headers["x-databricks-org-id"]) == (404, "7")
