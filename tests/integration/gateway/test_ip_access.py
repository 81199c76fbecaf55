"""IP access lists at the gateway: each authenticated request, on every way it can take."""

import json

import httpx
import pytest
from tests.integration.gateway.conftest import World, eventually
from tests.integration.gateway.peers import endpoint, entity, grant, identity
from tests.unit.gateway.signing import Signer

from servery_common.contracts import subjects
from servery_common.contracts.access import MODEL_SCOPE
from servery_common.contracts.management import HttpAnswer, HttpCall

WORKSPACE = identity().workspace_id
HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"
PROXIED = {"x-forwarded-for": "203.0.113.7"}


async def serve(world: World) -> list[HttpCall]:
    """An endpoint, and a controller; returns the calls that reach it. Nobody is restricted to begin with."""
    for workspace_id in (WORKSPACE, "77"):
        await world.restrict(workspace_id)
    calls: list[HttpCall] = []

    async def answer(call: HttpCall) -> HttpAnswer:
        calls.append(call)
        return HttpAnswer(status=200, body="{}")

    await world.bus.serve(subjects.controller_http(), HttpCall, answer)
    replica = await world.replica("r1")
    await world.publish(endpoint("iris", entity("m", replica.route(8))))
    return calls


async def chunks():
    """A body without a declared length: such a request is not short."""
    yield b'{"inputs":'
    yield b"[1]}"


async def everywhere(http: httpx.AsyncClient, **options) -> list[httpx.Response]:
    """One request of each kind: short and long scoring, management, a path that is none."""
    path = "/serving-endpoints/iris/invocations"
    return [
        await http.post(path, content=b'{"inputs":[1]}', **options),
        await http.post(path, content=chunks(), **options),
        await http.get("/api/2.0/serving-endpoints", **options),
        await http.get(path, **options),
    ]


def statuses(answers: list[httpx.Response]) -> list[int]:
    return [answer.status_code for answer in answers]


@pytest.fixture
async def elsewhere(world: World):
    """A client with another address."""
    transport = httpx.AsyncHTTPTransport(local_address=ELSEWHERE)
    async with httpx.AsyncClient(
        base_url=world.http.base_url, headers=world.http.headers, transport=transport
    ) as http:
        yield http


LET_IN, REFUSED = [200, 200, 200, 400], [403, 403, 403, 403]


async def test_only_addresses_that_are_allowed_get_in_on_any_way(world: World, elsewhere: httpx.AsyncClient):
    calls = await serve(world)
    assert statuses(await everywhere(elsewhere)) == LET_IN
    await world.restrict(WORKSPACE, allow=(f"{HERE}/32",))
    before = len(calls)
    assert statuses(await everywhere(world.http)) == LET_IN
    assert [call.client for call in calls[before:]] == [HERE]
    for _ in range(2):
        for answer in await everywhere(elsewhere):
            assert answer.status_code == 403
            assert answer.json()["error_code"] == "PERMISSION_DENIED"
            assert f"Source IP address: {ELSEWHERE} is blocked" in answer.json()["message"]
            assert f"workspace: {WORKSPACE}" in answer.json()["message"]
            assert answer.headers["x-request-id"]
    assert len(calls) == before + 1, "refused at the gateway"
    await world.restrict(WORKSPACE)
    assert statuses(await everywhere(elsewhere)) == LET_IN


async def test_block_wins_over_allow(world: World, elsewhere: httpx.AsyncClient):
    await serve(world)
    await world.restrict(WORKSPACE, allow=("127.0.0.0/8",), block=(f"{ELSEWHERE}/32",))
    assert statuses(await everywhere(world.http)) == LET_IN
    assert statuses(await everywhere(elsewhere)) == REFUSED


async def test_a_workspace_is_asked_for_its_own_lists_only(world: World):
    await serve(world)
    await world.admit(identity("eve", workspace_id="77"), grant("eves-token", "eve"))
    await world.restrict("77", block=("127.0.0.0/8",))
    assert statuses(await everywhere(world.http)) == LET_IN
    answers = await everywhere(world.http, headers={"authorization": "Bearer eves-token"})
    assert statuses(answers) == REFUSED
    assert "workspace: 77" in answers[0].json()["message"]


async def test_the_token_of_a_model_opens_no_other_door(world: World):
    calls = await serve(world)
    signer = Signer()
    await world.bus.kv_put(subjects.SIGNING_KEYS_BUCKET, signer.key.key_id, signer.key)
    await eventually(lambda: world.gateway.table.snapshot.signing_keys.get(signer.key.key_id) == signer.key)
    token = signer.token("pann", scope=MODEL_SCOPE, endpoint_id=endpoint("iris").endpoint_id)
    let_in = await everywhere(world.http, headers={"authorization": f"Bearer {token}"})
    assert statuses(let_in) == LET_IN
    await world.restrict(WORKSPACE, block=("127.0.0.0/8",))
    before = len(calls)
    answers = await everywhere(world.http, headers={"authorization": f"Bearer {token}"})
    assert statuses(answers) == REFUSED
    assert len(calls) == before


async def test_without_a_valid_token_nothing_is_said_about_addresses(world: World):
    await serve(world)
    await world.restrict(WORKSPACE, block=("127.0.0.0/8",))
    answers = await everywhere(world.http, headers={"authorization": "Bearer wrong"})
    assert statuses(answers) == [401] * 4
    for path in ("/healthz", "/readyz", "/.well-known/databricks-config"):
        assert (await world.http.get(path)).status_code == 200


async def test_refusals_are_counted_by_their_reason(world: World):
    await serve(world)
    await world.restrict(WORKSPACE, block=("127.0.0.0/8",))
    await everywhere(world.http)
    [counted] = world.gateway.rejections.read()
    assert (counted.endpoint_id, counted.counts) == (endpoint("iris").endpoint_id, {"ip_access": 2})


async def test_a_refused_request_takes_nothing_of_the_quota(world: World, elsewhere: httpx.AsyncClient):
    await serve(world)
    await world.allow(WORKSPACE, 1)
    await world.restrict(WORKSPACE, allow=(f"{HERE}/32",))
    for _ in range(10):
        assert statuses(await everywhere(elsewhere)) == REFUSED
    assert (await world.score("iris")).status_code == 200


@pytest.mark.parametrize("trusted", ["", HERE, "*"])
async def test_a_proxy_is_believed_on_every_way_if_it_is_trusted(bare_world: World, trusted: str):
    world = bare_world
    await world.connect_bus()
    await world.start_gateway(trusted_proxies=trusted)
    await eventually(lambda: world.gateway.why_not_ready() is None)
    calls = await serve(world)
    await world.restrict(WORKSPACE, block=("203.0.113.0/24",))
    answers = await everywhere(world.http, headers=PROXIED)
    assert statuses(answers) == (REFUSED if trusted else LET_IN)
    assert statuses(await everywhere(world.http)) == LET_IN, "without the header it is the proxy that calls"
    assert {call.client for call in calls} == {HERE}


async def test_lists_are_kept_for_a_start_without_nats(world: World):
    await world.restrict(WORKSPACE, allow=("203.0.113.0/24",), block=("203.0.113.9/32",))
    await world.gateway.stop()
    kept = json.loads((world.directory / "routing-snapshot.json").read_text())
    assert kept["ip_access"][WORKSPACE]["allow"] == ["203.0.113.0/24"]
    assert kept["ip_access"][WORKSPACE]["block"] == ["203.0.113.9/32"]


async def test_lists_hold_after_a_restart_while_nats_is_away(world: World):
    await serve(world)
    await world.restrict(WORKSPACE, block=("127.0.0.0/8",))
    await world.gateway.stop()
    await world.stop_gateway()
    world.server.kill()
    try:
        await world.start_gateway()
        assert statuses(await everywhere(world.http)) == REFUSED
    finally:
        world.server.start()
