"""Tags, rate limits, events and what is refused, against real NATS and Postgres."""

import asyncpg
import pytest
from tests.integration.controller.conftest import World
from tests.integration.controller.peers import entity

from servery_controller.domain.happenings import EndpointEvent, EventStatus, EventType
from servery_controller.endpoints import events


async def deploy(world: World, **fields) -> None:
    await world.ok("POST", "", {"name": "iris", "config": {"served_entities": [entity("1")]}, **fields})
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")


async def test_tags_are_added_overwritten_and_deleted(world: World):
    await world.ok("POST", "", {"name": "iris", "tags": [{"key": "team", "value": "a"}, {"key": "old"}]})
    body = {
        "add_tags": [{"key": "team", "value": "b"}, {"key": "flag", "value": None}],
        "delete_tags": ["old"],
    }
    tags = [{"key": "team", "value": "b"}, {"key": "flag", "value": ""}]
    assert await world.ok("PATCH", "/iris/tags", body) == {"tags": tags}
    assert (await world.ok("GET", "/iris"))["tags"] == tags
    assert (await world.ok("GET", ""))["endpoints"][0]["tags"] == tags


async def test_tags_that_are_too_large_are_refused_here_and_at_creation(world: World):
    await world.ok("POST", "", {"name": "iris"})
    large = [{"key": "k" * 10_240, "value": "v"}]
    status, code, message = await world.refused("PATCH", "/iris/tags", {"add_tags": large})
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert "longer than 127 bytes" in message
    assert (await world.refused("POST", "", {"name": "other", "tags": large}))[:2] == (status, code)
    assert (await world.refused("PATCH", "/none/tags", {}))[:2] == (404, "RESOURCE_DOES_NOT_EXIST")


async def test_rate_limits_are_stored_answered_and_told_to_gateways(world: World):
    limit = {"key": "endpoint", "calls": 100, "renewal_period": "minute"}
    await deploy(world, rate_limits=[limit])

    async def routed(*limits: tuple[str, int]) -> None:
        def told() -> bool:
            route = world.gateway.route("iris")
            return route is not None and tuple((r.key, r.calls) for r in route.rate_limits) == limits

        await world.until(told)

    await routed(("endpoint", 100))
    body = {"rate_limits": [{"key": "user", "calls": "5", "renewal_period": "minute"}]}
    stored = [{"key": "user", "calls": 5, "renewal_period": "minute"}]
    assert await world.ok("PUT", "/iris/rate-limits", body) == {"rate_limits": stored}
    got = await world.ok("GET", "/iris")
    assert (got["rate_limits"], got["ai_gateway"]) == (stored, {"rate_limits": stored})
    assert got["state"] == {
        "ready": "READY",
        "config_update": "NOT_UPDATING",
        "suspend": "NOT_SUSPENDED",
    }, "a limit is no update"
    await routed(("user", 5))

    newer = {
        "rate_limits": [{"calls": 0, "renewal_period": "minute"}],
        "usage_tracking_config": {"enabled": False},
    }
    zero = [{"key": "endpoint", "calls": 0, "renewal_period": "minute"}]
    assert await world.ok("PUT", "/iris/ai-gateway", newer) == {"rate_limits": zero}
    await routed(("endpoint", 0))
    assert await world.ok("PUT", "/iris/rate-limits", {}) == {"rate_limits": []}
    await routed()
    assert "rate_limits" not in await world.ok("GET", "/iris")


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ([{"calls": -1, "renewal_period": "minute"}], "calls is -1"),
        ([{"calls": 1, "renewal_period": "hour"}], "renewal_period"),
        ([{"calls": 1, "renewal_period": "minute", "key": "group"}], "key"),
        ([{"calls": "many", "renewal_period": "minute"}], "calls"),
        ([{"renewal_period": "minute"}], "calls"),
        ([{"calls": 1, "renewal_period": "minute"}, {"calls": 2, "renewal_period": "minute"}], "two limits"),
    ],
)
async def test_wrong_rate_limits_are_refused(world: World, limits, said):
    await world.ok("POST", "", {"name": "iris"})
    status, code, message = await world.refused("PUT", "/iris/rate-limits", {"rate_limits": limits})
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert said in message


_PT = {"name": "p", "config": {"served_entities": []}}
_MINUTE = {"calls": 1, "renewal_period": "minute"}


@pytest.mark.parametrize(
    ("method", "path", "body", "named"),
    [
        ("POST", "/pt", _PT, "workload_size"),
        ("PUT", "/pt/iris/config", _PT, "workload_size"),
        ("PATCH", "/iris/telemetry-config", {}, "telemetry_config"),
        ("PUT", "/iris/ai-gateway", {"guardrails": {"input": {"pii": {}}}}, "ai_gateway.guardrails"),
        ("PUT", "/iris/ai-gateway", {"fallback_config": {"enabled": True}}, "fallback_config"),
        (
            "PUT",
            "/iris/ai-gateway",
            {"inference_table_config": {"catalog_name": "c"}},
            "inference_table_config",
        ),
        ("PUT", "/iris/ai-gateway", {"usage_tracking_config": {"enabled": True}}, "usage_tracking_config"),
        ("PUT", "/iris/ai-gateway", {"rate_limits": [_MINUTE | {"key": "user_group"}]}, "user_group"),
        ("PUT", "/iris/ai-gateway", {"rate_limits": [_MINUTE | {"tokens": 5}]}, "tokens"),
        ("PUT", "/iris/ai-gateway", {"rate_limits": [_MINUTE | {"principal": "ann"}]}, "principal"),
        ("POST", "", {"name": "x", "telemetry_config": {"table_names": {}}}, "telemetry_config"),
        (
            "PUT",
            "/iris/config",
            {"served_entities": [entity()], "auto_capture_config": {"catalog_name": "c"}},
            "auto_capture_config",
        ),
        ("PUT", "/iris/config", {"served_entities": [entity(workload_type="GPU_SMALL")]}, "CPU_MEDIUM"),
    ],
)
async def test_what_is_not_offered_says_so_and_names_it(world: World, method, path, body, named):
    await world.ok("POST", "", {"name": "iris"})
    status, code, message = await world.refused(method, path, body)
    assert (status, code) == (501, "NOT_IMPLEMENTED"), message
    assert named in message


async def test_features_that_are_turned_off_are_accepted(world: World):
    config = {"served_entities": [entity()], "auto_capture_config": {"catalog_name": "c", "enabled": False}}
    await world.ok("POST", "", {"name": "iris", "config": config, "ai_gateway": {"guardrails": None}})


async def test_answers_hold_every_field_of_the_endpoint(world: World):
    body = {"name": "iris", "description": "Flowers.", "budget_policy_id": "b-1", "route_optimized": True}
    await world.ok("POST", "", body)
    got = await world.ok("GET", "/iris")
    assert (got["creator"], got["creator_display_name"], got["creator_kind"]) == ("admin", "admin", "User")
    assert (got["description"], got["budget_policy_id"]) == ("Flowers.", "b-1")
    assert got["endpoint_url"] == "http://127.0.0.1:8080/serving-endpoints/iris/invocations"
    assert "data_plane_info" not in got
    assert got["task"] is None
    assert got["endpoint_type"] is None


async def test_events_tell_the_story_of_an_endpoint_newest_first(world: World):
    await deploy(world)
    world.builder.outcome = lambda order: "No disk." if order.model_version == "2" else None
    await world.ok("PUT", "/iris/config", {"served_entities": [entity("2")]})
    await world.settled("iris")
    world.builder.hold.clear()
    await world.ok("PUT", "/iris/config", {"served_entities": [entity("3")]})
    await world.ok("POST", "/iris/config:cancel")
    await world.ok("POST", "/iris/config:stop")
    await world.ok("POST", "/iris/config:start")
    await world.ok("POST", "/iris/config:cancel")
    world.builder.hold.set()
    await world.ok("POST", "/iris/config:start")
    await world.settled("iris")
    told = (await world.ok("GET", "/iris/events"))["events"]
    story = [(e["event_type"].removesuffix("_EVENT"), e["status"]) for e in reversed(told)]
    first = [
        ("ENDPOINT_CREATION", "SUCCEEDED"),
        ("ENDPOINT_UPDATE", "IN_PROGRESS"),
        ("SERVED_ENTITY_CONTAINER", "SUCCEEDED"),
        ("SERVED_ENTITY_DEPLOYMENT", "SUCCEEDED"),
        ("ENDPOINT_UPDATE", "SUCCEEDED"),
    ]
    assert story == [
        *first,
        ("ENDPOINT_UPDATE", "IN_PROGRESS"),
        ("SERVED_ENTITY_CONTAINER", "FAILED"),
        ("ENDPOINT_UPDATE", "FAILED"),
        ("ENDPOINT_UPDATE", "IN_PROGRESS"),
        ("ENDPOINT_UPDATE", "CANCELED"),
        ("ENDPOINT_STOP", "SUCCEEDED"),
        ("ENDPOINT_START", "IN_PROGRESS"),
        ("ENDPOINT_START", "CANCELED"),
        ("ENDPOINT_START", "IN_PROGRESS"),
        *first[2:4],
        ("ENDPOINT_START", "SUCCEEDED"),
    ]
    assert [e["timestamp"] for e in told] == sorted((e["timestamp"] for e in told), reverse=True)
    failed = next(e for e in told if e["status"] == "FAILED")
    assert "No disk." in failed["message"]
    assert failed["config_version"] == 2
    assert (await world.refused("GET", "/none/events"))[:2] == (404, "RESOURCE_DOES_NOT_EXIST")


async def test_a_replica_that_is_lost_and_comes_back_is_told(world: World):
    await deploy(world)
    world.worker.lose_everything()

    async def story() -> list[str]:
        told = (await world.ok("GET", "/iris/events"))["events"]
        return [e["message"] for e in told if e["event_type"] == "SERVED_ENTITY_DEPLOYMENT_EVENT"]

    async def recovered() -> bool:
        return "recovered" in (await story())[0]

    await world.until(recovered)
    assert "No replica takes requests" in (await story())[1]


async def test_only_the_newest_events_are_kept(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events, "KEPT_PER_ENDPOINT", 3)
    endpoint_id = (await world.ok("POST", "", {"name": "iris"}))["id"]
    other_id = (await world.ok("POST", "", {"name": "other"}))["id"]
    connection = await asyncpg.connect(world.postgres_url)
    many = [EndpointEvent(EventType.ENDPOINT_UPDATE, EventStatus.SUCCEEDED, str(i)) for i in range(5)]
    await events.record(connection, endpoint_id, many[:2])
    await events.record(connection, endpoint_id, many[2:])
    await connection.close()
    told = (await world.ok("GET", "/iris/events"))["events"]
    assert [e["message"] for e in told] == ["4", "3", "2"]
    assert other_id
    assert len((await world.ok("GET", "/other/events"))["events"]) == 1


async def test_logs_take_the_config_version_from_a_body_and_of_retired_versions(world: World):
    await deploy(world)
    await world.ok("PUT", "/iris/config", {"served_entities": [entity("2")]})
    await world.settled("iris")
    logs = "/iris/served-models/iris-1/build-logs"
    assert (await world.ok("GET", logs))["logs"] == "installing\ndone"
    assert (await world.ok("GET", logs, {"config_version": "1"}))["logs"] == "installing\ndone"
    assert (await world.refused("GET", logs, {"config_version": 2}))[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    assert (await world.refused("GET", f"{logs}?config_version=2"))[0] == 404
    assert (await world.refused("GET", logs, {"config_version": "x"}))[:2] == (400, "INVALID_PARAMETER_VALUE")
    assert (await world.ok("GET", "/iris/served-models/iris-1/logs", {"config_version": 1}))["logs"] == ""


async def test_a_workspace_has_room_for_so_many_endpoints(world: World, monkeypatch: pytest.MonkeyPatch):
    await world.crash_controller()
    monkeypatch.setenv("SERVERY_MAX_ENDPOINTS_PER_WORKSPACE", "2")
    await world.start_controller()
    for name in ("a", "b"):
        await world.ok("POST", "", {"name": name})
    status, code, message = await world.refused("POST", "", {"name": "c"})
    assert (status, code) == (400, "BAD_REQUEST")
    assert "2 endpoints" in message
    assert (await world.refused("POST", "", {"name": "a"}))[1] == "RESOURCE_ALREADY_EXISTS"
    await world.ok("DELETE", "/a")
    await world.ok("POST", "", {"name": "c"})
