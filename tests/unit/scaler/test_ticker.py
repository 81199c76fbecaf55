"""Routes, loads and wakes in, scale requests out; the clock is the test's."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

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
)
from servery_common.errors import Unavailable
from servery_common.messaging.testing import InMemoryBus
from servery_scaler.autoscaler import ScalingPolicy
from servery_scaler.collector import LoadCollector
from servery_scaler.scale_requests import REPEAT_SECONDS, ScaleRequests
from servery_scaler.ticker import Ticker

POLICY = ScalingPolicy(stable_window=10.0, down_interval=0.0)


@dataclass
class World:
    """A scaler, one gateway and a controller that does as it is told, unless it is down."""

    now: float = 0.0
    asked: list[ScaleRequest] = field(default_factory=list)
    controller_down: bool = False
    obeyed: bool = True
    routes: dict[str, EndpointRoute] = field(default_factory=dict)

    def start(self) -> None:
        self.bus = InMemoryBus()
        self.collector = LoadCollector(lambda: self.now)
        self.requests = ScaleRequests(self.bus, lambda: self.now)
        self.ticker = Ticker(
            self.bus, self.collector, self.requests, POLICY, lambda: self.now, lambda: 1e9 + self.now
        )

    async def scale(self, request: ScaleRequest) -> ScaleAnswer:
        if self.controller_down:
            raise Unavailable("The controller is not there.")
        self.asked.append(request)
        route = self.routes[request.endpoint_id]
        if self.obeyed:
            desired = request.desired_replicas
            entity = route.served_entities[0].model_copy(
                update={"desired_replicas": desired, "replicas": replicas(desired)}
            )
            self.route(route.model_copy(update={"served_entities": (entity,)}))
        return ScaleAnswer(accepted=True, desired_replicas=request.desired_replicas)

    def route(self, route: EndpointRoute) -> None:
        self.routes[route.endpoint_id] = route
        self.ticker.routed(route.endpoint_id, route)

    async def report(self, *loads: EntityLoad) -> None:
        await self.collector.heard(GatewayLoad(gateway_id="g1", window_seconds=1, entities=loads))

    async def second(self, *loads: EntityLoad) -> None:
        self.now += 1
        await self.report(*loads)
        self.ticker.tick()
        await settle()

    @property
    def desired(self) -> int:
        return self.routes["ep1"].served_entities[0].desired_replicas


async def settle() -> None:
    """Let what is under way come to its end: the bus is in memory, so a few turns of the loop are enough."""
    for _ in range(20):
        await asyncio.sleep(0)


def replicas(count: int) -> tuple[ReplicaRoute, ...]:
    return tuple(ReplicaRoute(replica_id=f"r{n}", slots=4) for n in range(count))


def route(name: str = "ep1", desired: int = 1, low: int = 1, high: int = 8, **more) -> EndpointRoute:
    entity = ServedEntityRoute(
        served_entity_id=f"{name}-e",
        name="iris-1",
        traffic_percentage=100,
        min_replicas=low,
        max_replicas=high,
        desired_replicas=desired,
        replicas=replicas(desired),
        scale_to_zero_seconds=60.0,
    )
    entity = entity.model_copy(update=more.pop("entity", {}))
    given = {"workspace_id": "1", "name": name, "status": "serving", **more}
    return EndpointRoute(endpoint_id=name, served_entities=(entity,), **given)


def load(in_flight: float, requests: int = 0, queued: float = 0.0, name: str = "ep1") -> EntityLoad:
    return EntityLoad(
        endpoint_id=name,
        served_entity_id=f"{name}-e",
        in_flight=in_flight,
        queued=queued,
        requests=requests,
        service_seconds=0.1 if requests else 0.0,
    )


def wake(held: int) -> GatewayWake:
    entity = HeldRequests(endpoint_id="ep1", served_entity_id="ep1-e", held=held)
    return GatewayWake(gateway_id="g1", entities=(entity,))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.start()
    await world.bus.serve(subjects.controller_scale(), ScaleRequest, world.scale)
    asking = asyncio.create_task(world.requests.run())
    yield world
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_load_brings_replicas_and_its_end_takes_them_away_step_by_step(world: World):
    world.route(route())
    for _ in range(6):
        await world.second(load(12.0, 120))
    assert world.desired == 4
    assert world.asked[-1].seen["running"] == 12.0
    for _ in range(6):
        await world.second(load(0.0))
    assert world.desired == 4
    for _ in range(12):
        await world.second()
    assert world.desired == 1
    assert [request.desired_replicas for request in world.asked[-3:]] == [3, 2, 1]


async def test_a_wake_is_not_left_to_the_next_tick(world: World):
    world.route(route(desired=0, low=0))
    await world.ticker.woken(wake(1))
    await settle()
    assert [request.desired_replicas for request in world.asked] == [1]
    assert world.now == 0.0


async def test_a_wake_for_more_than_one_replica_bears_brings_more(world: World):
    world.route(route(desired=0, low=0))
    await world.ticker.woken(wake(20))
    await settle()
    assert world.desired == 5


async def test_to_zero_after_the_time_set_though_the_gateway_mentions_it_once_a_minute(world: World):
    world.route(route(low=0))
    await world.second(load(1.0, 10))
    await world.second(load(0.0))
    for _ in range(57):
        await world.second()
    assert world.desired == 1
    await world.second(load(0.0))
    await world.second()
    assert world.desired == 0
    assert "to zero: no request for" in world.asked[-1].reason
    assert world.now == 61.0


async def test_a_single_request_that_began_and_ended_between_two_reports_starts_the_time_anew(world: World):
    world.route(route(low=0))
    await world.second(load(0.0))
    for _ in range(50):
        await world.second()
    await world.second(load(0.0, 1))
    for _ in range(58):
        await world.second(load(0.0))
    assert world.desired == 1
    for _ in range(3):
        await world.second()
    assert world.desired == 0


async def test_no_gateway_no_way_down_and_no_way_to_zero(world: World):
    world.route(route(low=0, desired=3))
    for _ in range(200):
        world.now += 1
        world.ticker.tick()
        await settle()
    assert world.asked == []


async def test_what_a_gateway_saw_while_it_could_not_be_heard_is_not_taken_for_nothing(world: World):
    world.route(route(low=0))
    await world.second(load(0.0))
    for _ in range(40):
        await world.second()
    world.now += 15
    for _ in range(55):
        await world.second(load(0.0))
    assert world.desired == 1
    for _ in range(10):
        await world.second()
    assert world.desired == 0


async def test_a_restarted_scaler_takes_nothing_away_for_a_whole_window(world: World):
    world.route(route(desired=4))
    for _ in range(int(POLICY.stable_window) - 1):
        await world.second(load(0.5, 5))
    assert world.desired == 4
    for _ in range(4):
        await world.second(load(0.5, 5))
    assert world.desired < 4


async def test_only_what_is_serving_is_scaled(world: World):
    for status in ("deploying", "failed", "stopped"):
        world.route(route(status=status))
        await world.second(load(50.0, 100))
        assert world.asked == []
    answer = await world.ticker.explain(ExplainScaling(endpoint_id="ep1"))
    assert answer.entities == ()


async def test_an_endpoint_that_is_gone_is_asked_nothing_for(world: World):
    world.route(route())
    await world.second(load(50.0, 100))
    world.asked.clear()
    world.ticker.routed("ep1", None)
    await world.second(load(90.0, 100))
    await world.ticker.woken(wake(3))
    await settle()
    assert world.asked == []


async def test_what_was_asked_is_asked_again_until_the_route_shows_it_but_not_in_every_tick(world: World):
    world.obeyed = False
    world.route(route(desired=1, low=2))
    for _ in range(10):
        world.now += REPEAT_SECONDS / 10
        world.ticker.tick()
        await settle()
    assert len(world.asked) == 1
    world.now += REPEAT_SECONDS
    world.ticker.tick()
    await settle()
    assert len(world.asked) == 2


async def test_a_controller_that_was_away_is_asked_as_soon_as_it_is_back(world: World):
    world.controller_down = True
    world.route(route(desired=1, low=2))
    await world.second()
    world.controller_down = False
    await world.second()
    assert world.desired == 2


async def test_explain_says_what_is_seen_now_and_changes_nothing(world: World):
    world.route(route(desired=2))
    for _ in range(3):
        await world.second(load(3.0, 30))
    first = await world.ticker.explain(ExplainScaling(endpoint_id="ep1"))
    (entity,) = first.entities
    assert (entity.served_entity_id, entity.desired_replicas, entity.target_concurrency) == ("ep1-e", 2, 4.0)
    assert entity.decided_at_ms == 1_000_000_003_000
    assert "3.0 requests at a time" in entity.reason
    assert entity.seen["service_seconds"] == 0.1
    assert await world.ticker.explain(ExplainScaling(endpoint_id="ep1")) == first
    assert (await world.ticker.explain(ExplainScaling(endpoint_id="other"))).entities == ()


async def test_a_pinned_target_concurrency_is_used_as_it_is(world: World):
    world.route(route(entity={"target_concurrency": 1.0}))
    for _ in range(6):
        await world.second(load(4.0, 40))
    assert world.desired == 6


async def test_of_many_idle_endpoints_a_tick_decides_none(world: World, monkeypatch: pytest.MonkeyPatch):
    for number in range(500):
        world.route(route(f"idle{number}", low=number % 2))
        await world.report(load(0.0, name=f"idle{number}"))
    world.route(route())
    await world.second(load(1.0, 10))
    decided: list[str] = []
    decide = Ticker._decide

    def counting(self, now, entity_id, *, keep=True):
        decided.append(entity_id)
        return decide(self, now, entity_id, keep=keep)

    monkeypatch.setattr(Ticker, "_decide", counting)
    for _ in range(20):
        await world.second(load(1.0, 10))
    assert set(decided) == {"ep1-e"}
    for _ in range(60):
        await world.second()
    # Those that may be scaled to zero were looked at when their time had come, and then no more.
    assert len(decided) <= 81 + 3 * 250
    assert world.routes["idle0"].served_entities[0].desired_replicas == 0
    assert world.routes["idle1"].served_entities[0].desired_replicas == 1
