"""The scaler on a real bus: routes and load in, scale requests out."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.infrastructure import NatsServer

from servery_common.contracts import subjects
from servery_common.contracts.routes import EndpointRoute, ServedEntityRoute
from servery_common.contracts.scaling import EntityLoad, GatewayLoad, ScaleAnswer, ScaleRequest
from servery_common.messaging.bus import connect_bus
from servery_common.messaging.port import Bus
from servery_common.service import ServiceContext
from servery_common.settings import NatsSettings
from servery_scaler.app import main


class Controller:
    """Answers scale requests and keeps them."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[ScaleRequest] = asyncio.Queue()

    async def scale(self, request: ScaleRequest) -> ScaleAnswer:
        self.requests.put_nowait(request)
        return ScaleAnswer(accepted=True, desired_replicas=request.desired_replicas)

    async def next(self) -> ScaleRequest:
        return await asyncio.wait_for(self.requests.get(), 20)


@pytest.fixture
async def bus(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bus]:
    monkeypatch.setenv("SERVERY_NATS_URL", nats_server.url)
    monkeypatch.setenv("SERVERY_SCALER_TICK_SECONDS", "0.1")
    async with connect_bus(NatsSettings(), name="peer") as bus:
        yield bus


@pytest.fixture
async def controller(bus: Bus) -> AsyncIterator[Controller]:
    controller = Controller()
    await bus.serve(subjects.controller_scale(), ScaleRequest, controller.scale, queue="controller")
    context = ServiceContext("scaler")
    scaler = asyncio.create_task(main(context))
    yield controller
    context.stop()
    await context.cancel_tasks()
    await scaler


def route(*, desired: int, low: int = 2, high: int = 4) -> EndpointRoute:
    entity = ServedEntityRoute(
        served_entity_id="e1",
        name="iris-1",
        traffic_percentage=100,
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


async def test_a_count_that_differs_from_the_decision_is_asked_for_until_the_route_shows_it(
    bus: Bus, controller: Controller
):
    await bus.kv_put(subjects.ROUTES_BUCKET, "ep1", route(desired=1))
    first = await controller.next()
    assert (first.endpoint_id, first.served_entity_id, first.desired_replicas) == ("ep1", "e1", 2)
    assert (await controller.next()).desired_replicas == 2
    await bus.kv_put(subjects.ROUTES_BUCKET, "ep1", route(desired=2))
    await bus.kv_put(subjects.ROUTES_BUCKET, "ep2", route(desired=4, low=3, high=3))
    while (await controller.next()).desired_replicas != 3:
        pass
    await bus.kv_delete(subjects.ROUTES_BUCKET, "ep2")


async def test_the_reason_names_the_load_that_gateways_reported(bus: Bus, controller: Controller):
    entity = EntityLoad(endpoint_id="ep1", served_entity_id="e1", in_flight=3, queued=2, requests=9)
    load = GatewayLoad(gateway_id="g1", window_seconds=1, entities=(entity,))
    await bus.kv_put(subjects.ROUTES_BUCKET, "ep1", route(desired=1))
    while "3.0 requests running, 2.0 waiting" not in (await controller.next()).reason:
        await bus.signal(subjects.gateway_load("g1"), load)
