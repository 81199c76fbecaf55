"""Replica counts: who changes them, the decisions that are kept, and the page that explains them."""

import asyncio
import math
from typing import Any

import asyncpg
import pytest
from tests.integration.controller.conftest import World
from tests.integration.controller.peers import entity

from servery_common.contracts import subjects
from servery_common.contracts.routes import ServedEntityRoute
from servery_common.contracts.scaling import (
    EntityScaling,
    ExplainScaling,
    GatewayWake,
    HeldRequests,
    ScaleAnswer,
    ScaleRequest,
    ScalingExplained,
)
from servery_controller.endpoints import events
from servery_controller.scaling import scaling_store

SIZES = {"workload_size": "Medium", "scale_to_zero_enabled": True}


async def deploy(world: World, name: str = "iris", **fields: Any) -> ServedEntityRoute:
    """Deploy an endpoint that may have zero to four replicas; returns its served entity's route."""
    await world.ok(
        "POST", "", {"name": name, "config": {"served_entities": [entity("1", **SIZES)]}, **fields}
    )
    assert await world.settled(name) == ("READY", "NOT_UPDATING")
    return await world.until(lambda: routed(world, name, desired=1, ready=1))


def routed(world: World, name: str, *, desired: int, ready: int) -> ServedEntityRoute | None:
    route = world.gateway.route(name)
    if route is None or not route.served_entities:
        return None
    served = route.served_entities[0]
    return served if (served.desired_replicas, len(served.replicas)) == (desired, ready) else None


async def scale(world: World, name: str, desired: int, reason: str = "load", **seen: float) -> ScaleAnswer:
    """Ask as the scaler does."""
    route = world.gateway.route(name)
    assert route is not None
    request = ScaleRequest(
        endpoint_id=route.endpoint_id,
        served_entity_id=route.served_entities[0].served_entity_id,
        desired_replicas=desired,
        reason=reason,
        seen=seen,
    )
    return await world.gateway.bus.request(subjects.controller_scale(), request, ScaleAnswer, timeout=5)


async def page(world: World, name: str = "iris", query: str = "") -> dict[str, Any]:
    return await world.ok("GET", f"/{name}/scaling{query}")


async def scaling_events(world: World, name: str = "iris") -> list[str]:
    told = (await world.ok("GET", f"/{name}/events"))["events"]
    return [e["message"] for e in told if e["event_type"] == "SERVED_ENTITY_SCALING_EVENT"]


async def test_a_decision_is_kept_with_its_event_and_carried_out(world: World):
    await deploy(world)
    answer = await scale(world, "iris", 3, "11.5 requests at a time", in_flight=11.5)
    assert answer == ScaleAnswer(accepted=True, desired_replicas=3)
    await world.until(lambda: routed(world, "iris", desired=3, ready=3))
    message = "Scaled from 1 to 3 replicas: 11.5 requests at a time"
    assert await scaling_events(world) == [message]
    [decision] = (await page(world))["decisions"]
    assert decision.pop("decided_at") > 1.7e12
    served = world.gateway.route("iris").served_entities[0]  # pyright: ignore[reportOptionalMemberAccess]
    assert decision == {
        "served_entity_name": "iris-1",
        "served_entity_id": served.served_entity_id,
        "config_version": 1,
        "before": 1,
        "after": 3,
        "reason": "11.5 requests at a time",
        "decided_by": "scaler",
        "seen": {"in_flight": 11.5},
    }
    assert (await scale(world, "iris", 3)).accepted, "repeating it changes nothing, and is no decision"
    assert await scaling_events(world) == [message]


async def test_what_is_beyond_the_range_is_clamped_and_said(world: World):
    await deploy(world)
    assert (await scale(world, "iris", 100, "a rush")).desired_replicas == 4
    [decision] = (await page(world))["decisions"]
    assert (decision["after"], decision["reason"]) == (4, "a rush (100 wanted; the range is 0 to 4)")


async def test_what_is_not_there_is_not_scaled(world: World):
    served = await deploy(world)
    route = world.gateway.route("iris")
    assert route is not None
    for endpoint_id, entity_id in (("none", served.served_entity_id), (route.endpoint_id, "none")):
        request = ScaleRequest(
            endpoint_id=endpoint_id, served_entity_id=entity_id, desired_replicas=2, reason="load"
        )
        answer = await world.gateway.bus.request(subjects.controller_scale(), request, ScaleAnswer, timeout=5)
        assert answer == ScaleAnswer(accepted=False)
    await world.ok("DELETE", "/iris")
    request = ScaleRequest(
        endpoint_id=route.endpoint_id,
        served_entity_id=served.served_entity_id,
        desired_replicas=2,
        reason="load",
    )
    answer = await world.gateway.bus.request(subjects.controller_scale(), request, ScaleAnswer, timeout=5)
    assert answer == ScaleAnswer(accepted=False)


async def test_of_twenty_gateways_that_wake_an_entity_one_is_heeded(world: World):
    served = await deploy(world)
    await scale(world, "iris", 0, "no request for 1800 s")
    await world.until(lambda: routed(world, "iris", desired=0, ready=0))
    await world.until(lambda: not world.worker.replicas)
    route = world.gateway.route("iris")
    assert route is not None
    held = HeldRequests(endpoint_id=route.endpoint_id, served_entity_id=served.served_entity_id, held=12)

    async def wake(gateway: int) -> None:
        signal = GatewayWake(gateway_id=f"g{gateway}", entities=(held,))
        await world.gateway.bus.signal(subjects.gateway_wake(f"g{gateway}"), signal)

    await asyncio.gather(*[wake(gateway) for gateway in range(20)])
    await world.until(lambda: routed(world, "iris", desired=1, ready=1))
    decisions = (await page(world))["decisions"]
    assert [(d["before"], d["after"], d["decided_by"]) for d in decisions] == [
        (0, 1, "wake"),
        (1, 0, "scaler"),
    ]
    assert (decisions[0]["reason"], decisions[0]["seen"]) == ("woken: 12 requests are held", {"held": 12})
    assert (await scaling_events(world))[0] == "Scaled from 0 to 1 replica: woken: 12 requests are held"


async def test_a_wake_of_an_entity_that_is_awake_changes_nothing(world: World):
    served = await deploy(world)
    await scale(world, "iris", 2)
    route = world.gateway.route("iris")
    assert route is not None
    held = HeldRequests(endpoint_id=route.endpoint_id, served_entity_id=served.served_entity_id, held=1)
    signal = GatewayWake(gateway_id="g1", entities=(held,))
    await world.gateway.bus.signal(subjects.gateway_wake("g1"), signal)
    await world.until(lambda: routed(world, "iris", desired=2, ready=2))
    assert len((await page(world))["decisions"]) == 1


async def test_only_the_newest_decisions_are_kept(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scaling_store, "KEPT_PER_ENDPOINT", 3)
    monkeypatch.setattr(events, "KEPT_PER_ENDPOINT", 4)
    await deploy(world)
    other = len((await world.ok("GET", "/iris/events"))["events"])
    for number in range(6):
        await scale(world, "iris", 2 + number % 2, f"reason {number}")
    reasons = ["reason 5", "reason 4", "reason 3"]
    assert [d["reason"] for d in (await page(world))["decisions"]] == reasons
    assert [d["reason"] for d in (await page(world, query="?limit=2"))["decisions"]] == reasons[:2]
    assert (await page(world, query="?limit=0"))["decisions"] == []
    told = (await world.ok("GET", "/iris/events"))["events"]
    assert len(told) == min(other, 4) + 4, "changing load pushes out nothing else"


@pytest.mark.parametrize("limit", ["-1", "1001", "many", "1.5"])
async def test_a_wrong_limit_is_refused(world: World, limit: str):
    await world.ok("POST", "", {"name": "iris"})
    status, code, message = await world.refused("GET", f"/iris/scaling?limit={limit}")
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert message.startswith("limit:")


async def test_the_page_tells_what_the_scaler_sees_and_decides(world: World):
    served = await deploy(world)
    said = EntityScaling(
        served_entity_id=served.served_entity_id,
        desired_replicas=1,
        reason="2.5 requests at a time; one replica takes 3.2",
        target_concurrency=3.2,
        seen={"in_flight": 2.5},
        decided_at_ms=1_800_000_000_000,
    )
    asked: list[str] = []

    async def explain(question: ExplainScaling) -> ScalingExplained:
        asked.append(question.endpoint_id)
        return ScalingExplained(entities=(said,))

    await world.gateway.bus.serve(subjects.scaler_explain(), ExplainScaling, explain, queue="scaler")
    shown = await page(world)
    assert asked == [shown["id"]]
    assert shown["scaler"] == {"answered": True}
    assert shown["scale_to_zero_seconds"] == 1800.0
    assert shown["compute"] == [{"kind": "workers", "slots": 64, "used": 4}]
    [shown_entity] = shown["served_entities"]
    assert shown_entity.pop("id") == served.served_entity_id
    assert shown_entity == {
        "name": "iris-1",
        "config_version": 1,
        "state": {"deployment": "DEPLOYMENT_READY", "deployment_state_message": ""},
        "slots_per_replica": 4,
        "scale_to_zero_enabled": True,
        "min_replicas": 0,
        "max_replicas": 4,
        "desired_replicas": 1,
        "ready_replicas": 1,
        "starting_replicas": 0,
        "waiting_replicas": 0,
        "stopping_replicas": 0,
        "target_concurrency": 3.2,
        "target_concurrency_is": "learned",
        "last_decision": {
            "desired_replicas": 1,
            "reason": "2.5 requests at a time; one replica takes 3.2",
            "seen": {"in_flight": 2.5},
            "decided_at": 1_800_000_000_000,
        },
    }
    await world.ok(
        "PATCH",
        "/iris/tags",
        {"add_tags": [{"key": "servery.target_concurrency", "value": "2"}]},
    )
    [shown_entity] = (await page(world))["served_entities"]
    assert (shown_entity["target_concurrency"], shown_entity["target_concurrency_is"]) == (2.0, "pinned")


async def test_the_page_shows_what_serves_and_what_is_to(world: World):
    async def versions() -> list[int]:
        return [e["config_version"] for e in (await page(world))["served_entities"]]

    await deploy(world)
    world.builder.hold.clear()
    await world.ok("PUT", "/iris/config", {"served_entities": [entity("2")]})
    assert await versions() == [1, 2]
    await world.ok("POST", "/iris/config:cancel")
    assert await versions() == [1]
    await world.ok("POST", "/iris/config:stop")
    assert await versions() == [1], "the last one a person wanted"
    world.builder.hold.set()


async def test_without_a_scaler_the_page_says_so_and_shows_the_rest(world: World):
    await deploy(world)
    await scale(world, "iris", 2)
    await world.until(lambda: routed(world, "iris", desired=2, ready=2))
    shown = await page(world)
    assert not shown["scaler"]["answered"]
    assert "The scaler does not answer right now" in shown["scaler"]["message"]
    [shown_entity] = shown["served_entities"]
    assert (shown_entity["ready_replicas"], shown_entity["desired_replicas"]) == (2, 2)
    assert shown_entity["last_decision"] is None
    assert shown_entity["target_concurrency"] is None
    assert [d["after"] for d in shown["decisions"]] == [2]


async def test_the_page_of_an_endpoint_without_a_config_and_of_none(world: World):
    await world.ok("POST", "", {"name": "iris"})
    shown = await page(world)
    assert (shown["served_entities"], shown["decisions"]) == ([], [])
    assert (await world.refused("GET", "/none/scaling"))[:2] == (404, "RESOURCE_DOES_NOT_EXIST")


async def test_whoever_may_view_an_endpoint_may_see_its_scaling(world: World):
    await world.ok("POST", "", {"name": "iris"})
    endpoint_id = (await world.ok("GET", "/iris"))["id"]
    ann = await world.new_user("ann")
    assert (await world.refused("GET", "/iris/scaling", identity=ann))[:2] == (403, "PERMISSION_DENIED")
    grant = {"access_control_list": [{"user_name": "ann", "permission_level": "CAN_VIEW"}]}
    await world.ok("PATCH", f"/api/2.0/permissions/serving-endpoints/{endpoint_id}", grant)
    assert (await world.ok("GET", "/iris/scaling", identity=ann))["name"] == "iris"
    other = await world.new_workspace("other")
    assert (await world.refused("GET", "/iris/scaling", identity=other))[0] == 404


async def test_a_served_entity_shows_what_its_size_means(world: World):
    await deploy(world)
    await scale(world, "iris", 2)
    await world.until(lambda: routed(world, "iris", desired=2, ready=2))
    config = (await world.ok("GET", "/iris"))["config"]
    for served in (config["served_entities"][0], config["served_models"][0]):
        assert served["servery"] == {
            "slots_per_replica": 4,
            "min_replicas": 0,
            "max_replicas": 4,
            "desired_replicas": 2,
            "ready_replicas": 2,
        }


async def test_options_are_tags_that_gateways_are_told_of(world: World):
    await deploy(world, tags=[{"key": "servery.scale_to_zero_seconds", "value": "60"}])

    def told() -> ServedEntityRoute:
        route = world.gateway.route("iris")
        assert route is not None
        return route.served_entities[0]

    assert told().scale_to_zero_seconds == 60.0
    add = [
        {"key": "servery.target_concurrency", "value": "2.5"},
        {"key": "servery.shadow", "value": "iris-1=10"},
    ]
    body = {"add_tags": add, "delete_tags": ["servery.scale_to_zero_seconds"]}
    await world.ok("PATCH", "/iris/tags", body)
    # Published before it was answered; the gateway hears of it in its own time.
    await world.until(lambda: told().target_concurrency == 2.5)
    assert (told().scale_to_zero_seconds, told().shadow_percentage) == (1800.0, 10)
    assert await world.state("iris") == ("READY", "NOT_UPDATING"), "nothing is deployed for it"


@pytest.mark.parametrize(
    ("key", "value", "right"),
    [
        ("servery.scale_to_zero_seconds", "soon", "1 to 604800"),
        ("servery.target_concurrency", "0", "0.01 to 1000"),
        ("servery.shadow", "iris-9=10", "there are: iris-1"),
        ("servery.rollout", "canary", "'immediate' or 'guarded'"),
        ("servery.scale", "1", "servery.scale_to_zero_seconds"),
    ],
)
async def test_a_wrong_option_is_refused_at_creation_and_later(
    world: World, key: str, value: str, right: str
):
    tags = [{"key": key, "value": value}]
    config = {"served_entities": [entity("1")]}
    await world.ok("POST", "", {"name": "iris", "config": config})
    for method, path, body in (
        ("PATCH", "/iris/tags", {"add_tags": tags}),
        ("POST", "", {"name": "other", "tags": tags, "config": config}),
    ):
        status, code, message = await world.refused(method, path, body)
        assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
        assert all(part in message for part in (key, value, right)), message
    assert (await world.ok("GET", "/iris"))["tags"] == []


async def test_an_option_that_was_stored_before_it_had_rules_keeps_nothing_from_working(world: World):
    await deploy(world)
    database = await asyncpg.connect(world.postgres_url)
    await database.execute(
        """UPDATE endpoints SET tags = '[["servery.scale_to_zero_seconds", "never"], ["servery.x", "1"]]'"""
    )
    await database.close()
    await scale(world, "iris", 2)
    served = await world.until(lambda: routed(world, "iris", desired=2, ready=2))
    assert math.isclose(served.scale_to_zero_seconds, 1800.0)
