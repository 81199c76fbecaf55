"""Copies of requests go to a served entity that is tried out; the client never notices."""

import asyncio
import json

import pytest
from structlog.testing import capture_logs
from tests.integration.gateway.conftest import World, eventually
from tests.integration.gateway.peers import Work, endpoint, entity

from servery_common.contracts import subjects
from servery_common.contracts.metrics import GatewayMetrics, ShadowComparisons
from servery_common.contracts.routes import EndpointRoute, ReplicaRoute
from servery_common.contracts.scaling import GatewayWake
from servery_gateway import shadows

SHADOW = "eirisidv2"


async def answers_one(work: Work) -> tuple[int, bytes]:
    return 200, b'{"predictions": [1.0]}'


async def answers_nearly_one(work: Work) -> tuple[int, bytes]:
    return 200, b'{ "predictions": [1.000001] }'


async def answers_two(work: Work) -> tuple[int, bytes]:
    return 200, b'{"predictions": [2.0]}'


async def refuses(work: Work) -> tuple[int, bytes]:
    return 400, b'{"error_code": "BAD_REQUEST", "message": "no"}'


def shadowed(primary: ReplicaRoute, *copies: ReplicaRoute, share: int = 100, **fields) -> EndpointRoute:
    weight = fields.pop("weight", 0)
    holds = fields.pop("holds", False)
    tried = entity("v2", *copies, weight=weight).model_copy(
        update={"shadow_percentage": share, "holds": holds}
    )
    return endpoint("iris", entity("v1", primary), tried, **fields)


def counted(world: World) -> tuple[int, int, int, int]:
    """Same, different, failed, skipped."""
    tally = world.gateway.shadows.tallies.changing(SHADOW)
    return (tally.same, tally.different, tally.failed, tally.skipped)


def nothing_kept(world: World) -> bool:
    return (world.gateway.shadows.under_way, world.gateway.shadows.held_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (answers_one, (1, 0, 0, 0)),
        (answers_nearly_one, (1, 0, 0, 0)),
        (answers_two, (0, 1, 0, 0)),
        (refuses, (0, 1, 0, 0)),
    ],
)
async def test_answers_are_compared(world: World, model, count):
    primary, tried = await world.replica("r1", answers_one), await world.replica("r2", model)
    await world.publish(shadowed(primary.route(), tried.route()))
    answer = await world.score("iris")
    assert (answer.status_code, answer.content) == (200, b'{"predictions": [1.0]}')
    assert answer.headers["served-model-name"] == "v1"
    await eventually(lambda: counted(world) == count)
    assert tried.ran == primary.ran
    assert nothing_kept(world)


async def test_longer_requests_are_copied_with_their_whole_body(world: World):
    bodies: list[bytes] = []

    async def model(work: Work) -> tuple[int, bytes]:
        bodies.append(bytes(work.body))
        return await answers_one(work)

    primary, tried = await world.replica("r1", model), await world.replica("r2", model)
    await world.publish(shadowed(primary.route(), tried.route()))
    content = json.dumps({"inputs": ["x" * 3_000_000]}).encode()
    assert (await world.score("iris", content)).status_code == 200
    await eventually(lambda: counted(world) == (1, 0, 0, 0))
    assert bodies == [content, content]


async def test_the_share_is_kept(world: World):
    primary, tried = await world.replica("r1"), await world.replica("r2")
    await world.publish(shadowed(primary.route(), tried.route(), share=25))
    for _ in range(40):
        assert (await world.score("iris")).status_code == 200
    await eventually(lambda: sum(counted(world)) >= 8)
    assert 8 <= sum(counted(world)) <= 12
    assert len(primary.ran) == 40


async def test_copies_that_find_no_slot_are_left_out(world: World):
    gate = asyncio.Event()

    async def hangs(work: Work) -> tuple[int, bytes]:
        await gate.wait()
        return await answers_one(work)

    primary, tried = await world.replica("r1", answers_one), await world.replica("r2", hangs)
    await world.publish(shadowed(primary.route(), tried.route(slots=2)))
    for _ in range(10):
        assert (await world.score("iris")).status_code == 200
    await eventually(lambda: counted(world) == (0, 0, 0, 8))
    assert world.gateway.shadows.under_way == 2
    pool = world.gateway.dispatcher.pool(SHADOW)
    assert pool is not None
    assert not pool.queue
    gate.set()
    await eventually(lambda: counted(world) == (2, 0, 0, 8))
    assert nothing_kept(world)


async def test_a_served_entity_with_clients_keeps_a_slot_for_them(world: World):
    gate = asyncio.Event()

    async def hangs(work: Work) -> tuple[int, bytes]:
        await gate.wait()
        return await answers_one(work)

    primary, tried = await world.replica("r1", answers_one), await world.replica("r2", hangs)
    route = shadowed(primary.route(), tried.route(slots=2), weight=1)
    await world.publish(route)
    path = "/serving-endpoints/iris/served-models/{}/invocations"
    for _ in range(3):
        answer = await world.http.post(path.format("v1"), content=b'{"inputs":[1]}')
        assert answer.status_code == 200
    await eventually(lambda: counted(world) == (0, 0, 0, 2))
    mine = asyncio.create_task(world.http.post(path.format("v2"), content=b'{"inputs":[1]}'))
    await eventually(lambda: len(tried.ran) == 2)
    gate.set()
    assert (await mine).status_code == 200


async def test_a_copy_that_is_refused_is_not_tried_again(world: World):
    primary, tried = await world.replica("r1"), await world.replica("r2")
    tried.refuse = "busy"
    await world.publish(shadowed(primary.route(), tried.route()))
    assert (await world.score("iris")).status_code == 200
    await eventually(lambda: counted(world) == (0, 0, 0, 1))
    assert (tried.messages, tried.ran) == (1, [])


async def test_a_copy_that_is_never_answered_ends_at_the_timeout(world: World):
    never = asyncio.Event()

    async def hangs(work: Work) -> tuple[int, bytes]:
        await never.wait()
        return 200, b""

    primary, tried = await world.replica("r1"), await world.replica("r2", hangs)
    await world.publish(shadowed(primary.route(), tried.route(), timeout_seconds=1.0))
    assert (await world.score("iris")).status_code == 200
    await eventually(lambda: counted(world) == (0, 0, 1, 0))
    assert nothing_kept(world)
    await eventually(lambda: len(tried.cancels) == 1)


async def test_a_replica_that_dies_with_a_copy_is_no_clients_concern(world: World):
    async def dies(work: Work) -> tuple[int, bytes, dict]:
        return 503, b'{"error_code": "TEMPORARILY_UNAVAILABLE", "message": "died"}', {"lost": True}

    primary, tried = await world.replica("r1"), await world.replica("r2", dies)
    await world.publish(shadowed(primary.route(), tried.route()))
    assert (await world.score("iris")).status_code == 200
    await eventually(lambda: counted(world) == (0, 0, 1, 0))
    assert world.gateway.rejections.read() == []


async def test_a_busy_gateway_makes_no_copies(world: World, monkeypatch: pytest.MonkeyPatch):
    primary, tried = await world.replica("r1"), await world.replica("r2")
    await world.publish(shadowed(primary.route(), tried.route()))
    monkeypatch.setattr(shadows, "MAX_UNDER_WAY", 0)
    assert (await world.score("iris")).status_code == 200
    await eventually(lambda: counted(world) == (0, 0, 0, 1))
    monkeypatch.undo()
    monkeypatch.setattr(shadows, "MAX_BYTES", 20)
    assert (await world.score("iris")).status_code == 200
    await eventually(lambda: counted(world) == (0, 0, 0, 2))
    assert tried.ran == []


async def test_copies_wake_a_served_entity_at_zero(world: World):
    wakes: list[GatewayWake] = []

    async def heard(wake: GatewayWake) -> None:
        wakes.append(wake)

    await world.bus.on_signal(subjects.ALL_GATEWAY_WAKES, GatewayWake, heard)
    primary = await world.replica("r1")
    await world.publish(shadowed(primary.route(), holds=True))
    assert (await world.score("iris")).status_code == 200
    await eventually(lambda: wakes)
    assert [(one.served_entity_id, one.held) for one in wakes[0].entities] == [(SHADOW, 0)]
    assert counted(world) == (0, 0, 0, 1)


async def test_counts_are_told_and_are_none_of_the_clients_metrics(world: World):
    told: list[ShadowComparisons] = []
    entities: dict[str, int] = {}

    async def heard(metrics: GatewayMetrics) -> None:
        told.extend(metrics.shadows)
        entities.update({one.served_entity_id: one.answered.requests for one in metrics.entities})

    await world.bus.on_signal(subjects.ALL_GATEWAY_METRICS, GatewayMetrics, heard)
    primary, tried = await world.replica("r1"), await world.replica("r2", answers_two)
    await world.publish(shadowed(primary.route(), tried.route()))
    assert (await world.score("iris")).status_code == 200
    await eventually(lambda: any(one.different for one in told), seconds=10)
    last = told[-1]
    assert (last.endpoint_id, last.served_entity_id, last.different) == ("eiris", SHADOW, 1)
    assert (sum(last.latency.counts), sum(last.primary_latency.counts)) == (1, 1)
    await eventually(lambda: entities.get("eirisidv1") == 1, seconds=10)
    assert entities.get(SHADOW, 0) == 0


async def test_differences_are_logged_without_what_people_sent_or_got(world: World):
    async def secret(work: Work) -> tuple[int, bytes]:
        return 200, b'{"predictions": ["secret"]}'

    primary, tried = await world.replica("r1", answers_one), await world.replica("r2", secret)
    await world.publish(shadowed(primary.route(), tried.route()))
    with capture_logs() as lines:
        for _ in range(shadows.LINES_PER_MINUTE + 5):
            assert (await world.score("iris")).status_code == 200
        await eventually(lambda: counted(world)[1] == shadows.LINES_PER_MINUTE + 5)
    told = [line for line in lines if line["event"] == "shadow_differs"]
    # Two minutes may have a share in it.
    assert shadows.LINES_PER_MINUTE <= len(told) <= shadows.LINES_PER_MINUTE + 5
    assert told[0]["kind"] == "type"
    assert not any("secret" in str(line) for line in lines if line["log_level"] != "debug")
