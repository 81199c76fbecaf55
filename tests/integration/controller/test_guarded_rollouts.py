"""Rollouts in steps, with gateways that tell how both versions do."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tests.integration.controller.conftest import World
from tests.integration.controller.peers import entity

from servery_common.contracts import subjects
from servery_common.contracts.metrics import EntityMetrics, GatewayMetrics, Histogram, RequestCounts
from servery_common.contracts.routes import EndpointRoute

GUARDED = {
    "servery.rollout": "guarded",
    "servery.rollout_steps": "10,50",
    "servery.rollout_step_seconds": "1",
    "servery.rollout_min_requests": "20",
}

Answers = Callable[[str], tuple[int, float]]
"""Served name -> how many of ten answers are errors, and the milliseconds each takes."""


async def deploy(world: World, **tags: str) -> None:
    body = {
        "name": "iris",
        "config": {"served_entities": [entity("1")]},
        "tags": [{"key": key, "value": value} for key, value in (GUARDED | tags).items()],
    }
    await world.ok("POST", "", body)
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")


@asynccontextmanager
async def traffic(world: World, answers: Answers) -> AsyncIterator[None]:
    """A gateway in which every routed version answers ten requests between two reports."""
    totals: dict[str, tuple[int, int, float]] = {}

    def report() -> GatewayMetrics:
        told: list[EntityMetrics] = []
        route = world.gateway.route("iris")
        for one in route.served_entities if route is not None else ():
            wrong, milliseconds = answers(one.name)
            requests, errors, spent = totals.get(one.served_entity_id, (0, 0, 0.0))
            requests, errors, spent = requests + 10, errors + wrong, spent + 10 * milliseconds
            totals[one.served_entity_id] = (requests, errors, spent)
            told.append(
                EntityMetrics(
                    served_entity_id=one.served_entity_id,
                    last_minute=RequestCounts(),
                    answered=RequestCounts(requests=requests, client_errors=errors),
                    in_flight=0,
                    queued=0,
                    latency=Histogram(sum_ms=spent),
                    queue_time=Histogram(),
                    prediction=Histogram(),
                )
            )
        return GatewayMetrics(gateway_id="g1", entities=tuple(told))

    async def tell() -> None:
        while True:
            await world.gateway.bus.signal(subjects.gateway_metrics("g1"), report())
            await asyncio.sleep(0.1)

    telling = asyncio.create_task(tell())
    try:
        yield
    finally:
        telling.cancel()


def shares(world: World) -> list[dict[str, int]]:
    """Each split gateways were told of, without repetitions."""
    found: list[dict[str, int]] = []
    for route in world.gateway.history:
        split = {e.name: e.traffic_percentage for e in route.served_entities}
        if split and split not in found:
            found.append(split)
    return found


async def published_shares(world: World) -> list[dict[str, int]]:
    """The split of each endpoint that is there for gateways at this moment."""
    found: list[dict[str, int]] = []
    async for change in world.gateway.bus.kv_watch(subjects.ROUTES_BUCKET, EndpointRoute):
        if change.caught_up:
            break
        if change.value is not None:
            found.append({e.name: e.traffic_percentage for e in change.value.served_entities})
    return found


async def test_a_version_that_does_well_gets_the_traffic_in_steps(world: World):
    await deploy(world)
    async with traffic(world, lambda name: (0, 10.0)):
        await world.ok("PUT", "/iris/config", {"served_entities": [entity("2")]})
        assert await world.settled("iris") == ("READY", "NOT_UPDATING")
    assert shares(world) == [
        {"iris-1": 100},
        {"iris-1": 9000, "iris-2": 1000},
        {"iris-1": 5000, "iris-2": 5000},
        {"iris-2": 100},
    ]
    events = (await world.ok("GET", "/iris/events"))["events"]
    assert [e["message"] for e in events if "% of the traffic" in e["message"]] == [
        "Config version 2 gets 50 % of the traffic.",
        "Config version 2 gets 10 % of the traffic.",
    ]


async def test_an_endpoint_that_nobody_calls_is_updated_step_by_step_and_says_so(world: World):
    await deploy(world, **{"servery.rollout_steps": "10"})
    await world.ok("PUT", "/iris/config", {"served_entities": [entity("2")]})
    await world.until(lambda: {"iris-1": 9000, "iris-2": 1000} in shares(world))

    async def message() -> str:
        config = (await world.ok("GET", "/iris"))["pending_config"]
        return config["served_entities"][0]["state"]["deployment_state_message"]

    told = await message()
    assert told.startswith("Rollout step 1 of 2: config version 2 gets 10 % of the traffic until "), told
    assert told.endswith("then 100 %, unless it does worse than version 1."), told
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")
    served = (await world.ok("GET", "/iris"))["config"]["served_entities"][0]
    assert (served["name"], served["state"]["deployment_state_message"]) == ("iris-2", "")


async def test_a_version_that_answers_with_errors_is_rolled_back_and_says_why(world: World):
    await deploy(world, **{"servery.rollout_step_seconds": "3600"})
    async with traffic(world, lambda name: (10 if name == "iris-2" else 0, 10.0)):
        await world.ok("PUT", "/iris/config", {"served_entities": [entity("2")]})
        assert await world.settled("iris") == ("READY", "UPDATE_FAILED")
    route = world.gateway.route("iris")
    assert route is not None
    assert {e.name: e.traffic_percentage for e in route.served_entities} == {"iris-1": 100}
    got = await world.ok("GET", "/iris")
    assert got["config"]["config_version"] == 1
    state = got["pending_config"]["served_entities"][0]["state"]
    assert state["deployment"] == "DEPLOYMENT_FAILED"
    assert "answers of the new version were errors" in state["deployment_state_message"]
    await world.until(lambda: len(world.worker.replicas) == 1)


async def test_a_rollout_goes_on_after_its_leader_crashed(world: World):
    await deploy(world, **{"servery.rollout_step_seconds": "2"})
    async with traffic(world, lambda name: (0, 10.0)):
        await world.ok("PUT", "/iris/config", {"served_entities": [entity("2")]})
        await world.until(lambda: {"iris-1": 9000, "iris-2": 1000} in shares(world))
        await world.crash_controller()
        await world.start_controller()
        assert await world.settled("iris") == ("READY", "NOT_UPDATING")
    assert shares(world)[-1] == {"iris-2": 100}


async def test_a_rollout_can_be_canceled(world: World):
    await deploy(world, **{"servery.rollout_step_seconds": "3600"})
    await world.ok("PUT", "/iris/config", {"served_entities": [entity("2")]})
    await world.until(lambda: {"iris-1": 9000, "iris-2": 1000} in shares(world))
    await world.refused("PUT", "/iris/config", {"served_entities": [entity("3")]})
    await world.ok("POST", "/iris/config:cancel")
    assert await published_shares(world) == [{"iris-1": 100}], "gateways were told when the call is answered"
    assert await world.settled("iris") == ("READY", "UPDATE_CANCELED")
    await world.until(lambda: len(world.worker.replicas) == 1)
    assert await published_shares(world) == [{"iris-1": 100}]
