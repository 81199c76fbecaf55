"""The scaler on a real bus: routes, loads and wakes in, scale requests and explanations out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.infrastructure import NatsServer

from servery_common.contracts import subjects
from servery_common.contracts.routes import EndpointRoute, ReplicaRoute, ServedEntityRoute
from servery_common.contracts.scaling import (
    EntityLoad,
    ExplainScaling,
    GatewayLoad,
    GatewayWake,
    HeldRequests,
    ScaleAnswer,
    ScaleRequest,
    ScalingExplained,
)
from servery_common.messaging.bus import connect_bus
from servery_common.messaging.port import Bus
from servery_common.service import ServiceContext
from servery_common.settings import NatsSettings
from servery_scaler.app import main

SECONDS = 20
"""Until a test gives up."""
NEVER = "3600"


class Controller:
    """Answers scale requests and keeps them."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[ScaleRequest] = asyncio.Queue()

    async def scale(self, request: ScaleRequest) -> ScaleAnswer:
        self.requests.put_nowait(request)
        return ScaleAnswer(accepted=True, desired_replicas=request.desired_replicas)

    async def next(self) -> ScaleRequest:
        return await asyncio.wait_for(self.requests.get(), SECONDS)


@pytest.fixture
async def bus(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bus]:
    monkeypatch.setenv("SERVERY_NATS_URL", nats_server.url)
    monkeypatch.setenv("SERVERY_SCALER_TICK_SECONDS", "0.1")
    monkeypatch.setenv("SERVERY_SCALER_STABLE_WINDOW", "2")
    async with connect_bus(NatsSettings(), name="peer") as bus:
        yield bus
        await bus.kv_delete(subjects.ROUTES_BUCKET, "ep1")


@pytest.fixture
async def controller(bus: Bus) -> Controller:
    controller = Controller()
    await bus.serve(subjects.controller_scale(), ScaleRequest, controller.scale, queue="controller")
    return controller


@asynccontextmanager
async def scaler() -> AsyncIterator[None]:
    """A scaler that knows the routes there are."""
    context = ServiceContext("scaler")
    running = asyncio.create_task(main(context))
    async with asyncio.timeout(SECONDS):
        while not context.is_ready:
            await asyncio.sleep(0.01)
            if running.done():
                running.result()
    yield
    context.stop()
    await context.cancel_tasks()
    await running


def route(*, desired: int, low: int = 2, high: int = 4) -> EndpointRoute:
    entity = ServedEntityRoute(
        served_entity_id="e1",
        name="iris-1",
        traffic_percentage=100,
        replicas=tuple(ReplicaRoute(replica_id=f"r{n}", slots=4) for n in range(desired)),
        min_replicas=low,
        max_replicas=high,
        desired_replicas=desired,
    )
    return EndpointRoute(
        endpoint_id="ep1",
        workspace_id="1",
        name="iris",
        status="serving",
        served_entities=(entity,),
    )


@asynccontextmanager
async def reporting(bus: Bus, in_flight: float) -> AsyncIterator[None]:
    """A gateway that reports, ten times as often as a real one."""

    async def report() -> None:
        entity = EntityLoad(
            endpoint_id="ep1", served_entity_id="e1", in_flight=in_flight, queued=0, requests=9
        )
        while True:
            load = GatewayLoad(gateway_id="g1", window_seconds=1, entities=(entity,))
            await bus.signal(subjects.gateway_load("g1"), load)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(report())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def wake(held: int) -> GatewayWake:
    entity = HeldRequests(endpoint_id="ep1", served_entity_id="e1", held=held)
    return GatewayWake(gateway_id="g1", entities=(entity,))


async def test_a_count_that_differs_from_the_decision_is_asked_for_until_the_route_shows_it(
    bus: Bus, controller: Controller
):
    await bus.kv_put(subjects.ROUTES_BUCKET, "ep1", route(desired=1))
    async with scaler():
        first = await controller.next()
        assert (first.endpoint_id, first.served_entity_id, first.desired_replicas) == ("ep1", "e1", 2)
        assert (await controller.next()).desired_replicas == 2


async def test_load_brings_replicas_and_the_reason_and_the_numbers_say_why(bus: Bus, controller: Controller):
    await bus.kv_put(subjects.ROUTES_BUCKET, "ep1", route(desired=2))
    async with scaler(), reporting(bus, in_flight=9.0):
        request = await controller.next()
    assert request.desired_replicas == 3
    assert "9.0 running, 0.0 waiting" in request.reason
    assert request.seen["running"] == 9.0


async def test_a_wake_is_answered_at_once_without_any_tick(
    bus: Bus, controller: Controller, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SERVERY_SCALER_TICK_SECONDS", NEVER)
    await bus.kv_put(subjects.ROUTES_BUCKET, "ep1", route(desired=0, low=0))
    async with scaler():
        await bus.signal(subjects.gateway_wake("g1"), wake(held=6))
        request = await controller.next()
    assert request.desired_replicas == 2
    assert "6.0 waiting" in request.reason


async def test_the_scaler_explains_what_it_sees_and_would_decide(bus: Bus, controller: Controller):
    await bus.kv_put(subjects.ROUTES_BUCKET, "ep1", route(desired=2))
    async with scaler(), reporting(bus, in_flight=3.0):
        async with asyncio.timeout(SECONDS):
            while True:
                answer = await bus.request(
                    subjects.scaler_explain(), ExplainScaling(endpoint_id="ep1"), ScalingExplained, timeout=3
                )
                (entity,) = answer.entities
                if entity.seen["load"] == 3.0:
                    break
    assert (entity.served_entity_id, entity.desired_replicas, entity.target_concurrency) == ("e1", 2, 4.0)
    assert "stays at 2: 3.0 requests at a time" in entity.reason
    assert controller.requests.empty()


async def test_a_restarted_scaler_takes_no_replica_away_before_it_has_watched_a_whole_window(
    bus: Bus, controller: Controller
):
    await bus.kv_put(subjects.ROUTES_BUCKET, "ep1", route(desired=4, low=1))
    async with reporting(bus, in_flight=1.0):
        for _ in range(2):
            async with scaler():
                request = await controller.next()
                assert request.desired_replicas == 3
                # It does go down, and what it knew when it was stopped is of no use to the next one.
                assert request.seen["watched_seconds"] >= 2.0
            while not controller.requests.empty():
                controller.requests.get_nowait()
