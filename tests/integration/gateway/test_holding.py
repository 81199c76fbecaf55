"""Served entities at zero: their requests are held, wake them, and are answered when a replica is there."""

import asyncio
import json

import pytest
from tests.integration.gateway.conftest import World, eventually
from tests.integration.gateway.peers import Work, endpoint, entity

from servery_common.contracts import subjects
from servery_common.contracts.routes import EndpointRoute, ReplicaRoute
from servery_common.contracts.scaling import GatewayLoad, GatewayWake

BURST = 500


class Heard:
    """What gateways say to the controller and the scaler."""

    def __init__(self) -> None:
        self.wakes: list[GatewayWake] = []
        self.loads: list[GatewayLoad] = []

    async def wake(self, wake: GatewayWake) -> None:
        self.wakes.append(wake)

    async def load(self, load: GatewayLoad) -> None:
        self.loads.append(load)

    def held(self) -> list[int]:
        return [one.held for wake in self.wakes for one in wake.entities]


@pytest.fixture
async def heard(world: World) -> Heard:
    heard = Heard()
    await world.bus.on_signal(subjects.ALL_GATEWAY_WAKES, GatewayWake, heard.wake)
    await world.bus.on_signal(subjects.ALL_GATEWAY_LOADS, GatewayLoad, heard.load)
    return heard


def at_zero(name: str = "iris", served: str = "v1", **fields) -> EndpointRoute:
    one = entity(served).model_copy(update={"holds": True, "min_replicas": 0, "desired_replicas": 0})
    return endpoint(name, one, **fields)


def awake(*replicas: ReplicaRoute, served: str = "v1", **fields) -> EndpointRoute:
    return endpoint("iris", entity(served, *replicas), **fields)


def failed(problem: str) -> EndpointRoute:
    one = entity("v1").model_copy(update={"problem": problem, "min_replicas": 0, "desired_replicas": 1})
    return endpoint("iris", one)


def waiting(world: World) -> int:
    return sum(len(pool.queue) for pool in world.gateway.dispatcher.pools())


async def send(world: World, count: int) -> list[asyncio.Task]:
    """Send so many requests, one after the other, and return when all are held."""
    before = waiting(world)
    tasks = [
        asyncio.create_task(world.score("iris", json.dumps({"inputs": [number]}).encode()))
        for number in range(count)
    ]
    await eventually(lambda: waiting(world) == before + count, seconds=20)
    return tasks


async def test_a_held_request_wakes_its_served_entity_and_is_answered(world: World, heard: Heard):
    await world.publish(at_zero())
    (request,) = await send(world, 1)
    await eventually(lambda: heard.wakes)
    (held,) = heard.wakes[0].entities
    assert (held.endpoint_id, held.served_entity_id, held.held) == ("eiris", "eirisidv1", 1)
    replica = await world.replica("r1")
    await world.publish(awake(replica.route()))
    answer = await request
    assert (answer.status_code, answer.content) == (200, b'{"inputs": [0]}')


async def test_it_is_asked_for_again_as_long_as_requests_are_held(world: World, heard: Heard):
    await world.publish(at_zero())
    requests = await send(world, 3)
    await eventually(lambda: len(heard.wakes) >= 3)
    assert heard.held()[-1] == 3
    assert any(one.queued > 0 for load in heard.loads for one in load.entities), "it is demand"
    replica = await world.replica("r1")
    await world.publish(awake(replica.route()))
    assert {answer.status_code for answer in await asyncio.gather(*requests)} == {200}
    assert world.gateway.dispatcher.waker.held() == ()


async def test_a_burst_at_zero_is_answered_oldest_first_and_spread_over_replicas(world: World):
    await world.allow("7", 100_000)
    await world.publish(at_zero())
    requests = await send(world, BURST)
    arrived = [
        json.loads(ticket.request.body)["inputs"][0]
        for pool in world.gateway.dispatcher.pools()
        for ticket in pool.queue
    ]
    order: list[int] = []
    gate = asyncio.Event()

    async def model(work: Work) -> tuple[int, bytes]:
        order.append(json.loads(bytes(work.body))["inputs"][0])
        await gate.wait()
        return 200, bytes(work.body)

    first = await world.replica("r1", model)
    await world.publish(awake(first.route()))
    await eventually(lambda: len(order) == 4)
    assert order == arrived[:4], "no more than it has slots for, and the oldest"
    second = await world.replica("r2", model)
    await world.publish(awake(first.route(), second.route()))
    await eventually(lambda: len(order) == 8)
    assert order[4:] == arrived[4:8]
    late = asyncio.create_task(world.score("iris", b'{"inputs": [-1]}'))
    await eventually(lambda: waiting(world) == BURST - 8 + 1)  # one that comes now is not refused
    gate.set()
    answers = await asyncio.gather(*requests)
    assert [answer.status_code for answer in answers] == [200] * BURST
    assert [answer.json()["inputs"] for answer in answers] == [[number] for number in range(BURST)]
    assert (await late).status_code == 200
    assert len(first.ran) + len(second.ran) == BURST + 1
    assert min(len(first.ran), len(second.ran)) >= 4
    # When all that was held is gone, the usual bound counts again.
    assert [pool.shared.held for pool in world.gateway.dispatcher.pools()] == [0]
    assert not any(pool.policy.overloaded for pool in world.gateway.dispatcher.pools())


async def test_a_start_that_failed_is_told_at_once(world: World):
    await world.publish(at_zero())
    requests = await send(world, 3)
    await world.publish(failed("MemoryError: too much"))
    for answer in await asyncio.gather(*requests):
        assert answer.status_code == 503
        assert "could be started: MemoryError: too much" in answer.text
        assert int(answer.headers["retry-after"]) >= 1
    next_one = await world.score("iris")
    assert next_one.status_code == 503
    assert "MemoryError: too much" in next_one.text
    replica = await world.replica("r1")
    await world.publish(awake(replica.route()))
    assert (await world.score("iris")).status_code == 200


async def test_held_requests_are_bounded_in_number(world: World):
    await world.publish(at_zero(max_held=3, max_queued=1))
    requests = await send(world, 3)
    refused = await world.score("iris")
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    replica = await world.replica("r1")
    await world.publish(awake(replica.route()))
    assert {answer.status_code for answer in await asyncio.gather(*requests)} == {200}


async def test_long_requests_are_held_too(world: World):
    await world.publish(at_zero())
    bodies = [json.dumps({"inputs": [letter * 300_000]}).encode() for letter in "ab"]
    requests = [asyncio.create_task(world.score("iris", body)) for body in bodies]
    await eventually(lambda: waiting(world) == 2)
    replica = await world.replica("r1")
    await world.publish(awake(replica.route()))
    assert [answer.content for answer in await asyncio.gather(*requests)] == bodies
    assert world.gateway.bodies.held == 0


async def test_a_held_request_ends_at_its_deadline(world: World):
    await world.publish(at_zero(timeout_seconds=1.0))
    answer = await world.score("iris")
    assert answer.status_code == 504
    assert waiting(world) == 0


async def test_a_client_that_leaves_makes_room(world: World):
    await world.publish(at_zero(max_held=1, max_queued=1))
    (request,) = await send(world, 1)
    request.cancel()
    await eventually(lambda: waiting(world) == 0)
    (other,) = await send(world, 1)
    replica = await world.replica("r1")
    await world.publish(awake(replica.route()))
    assert (await other).status_code == 200
    assert len(replica.ran) == 1


async def test_what_is_held_goes_to_the_served_entity_of_a_new_config(world: World, heard: Heard):
    await world.publish(at_zero())
    requests = await send(world, 5)
    await world.publish(at_zero(served="v2"))
    await eventually(lambda: waiting(world) == 5)
    await eventually(
        lambda: any(one.served_entity_id == "eirisidv2" for w in heard.wakes for one in w.entities)
    )
    replica = await world.replica("r2")
    await world.publish(awake(replica.route(), served="v2"))
    assert {answer.status_code for answer in await asyncio.gather(*requests)} == {200}


async def test_one_that_lost_its_replicas_is_not_waited_for_as_long(world: World):
    """Nobody says that one will come: the usual wait, then 503."""
    await world.publish(awake())
    answer = await world.score("iris")
    assert answer.status_code == 503
    assert waiting(world) == 0


async def test_a_replica_that_changes_hands_gets_no_more_than_its_slots(world: World):
    gate = asyncio.Event()

    async def model(work: Work) -> tuple[int, bytes]:
        await gate.wait()
        return 200, bytes(work.body)

    replica = await world.replica("r1", model)
    await world.publish(awake(replica.route(slots=2)))
    first = [asyncio.create_task(world.score("iris")) for _ in range(2)]
    await eventually(lambda: len(replica.work) == 2)
    await world.publish(awake(replica.route(slots=2), served="v2"))
    later = await send(world, 2)  # they wait: both slots are taken by requests of the entity before
    gate.set()
    answers = await asyncio.gather(*first, *later)
    assert {answer.status_code for answer in answers} == {200}
    assert len(replica.ran) == 4
