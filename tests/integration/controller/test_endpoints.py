"""The management API and the reconciler together, against real NATS and Postgres."""

import asyncio

import pytest
from tests.infrastructure import NatsServer
from tests.integration.controller.conftest import World
from tests.integration.controller.peers import ADMIN, entity

from servery_common.contracts.states import ReplicaState
from servery_common.contracts.subjects import ROUTES_BUCKET
from servery_common.errors import NotFound


async def test_an_endpoint_becomes_ready_and_routed(world: World):
    world.builder.hold.clear()
    created = await world.ok("POST", "", {"name": "iris", "config": {"served_entities": [entity()]}})
    assert created["state"] == {
        "ready": "NOT_READY",
        "config_update": "IN_PROGRESS",
        "suspend": "NOT_SUSPENDED",
    }
    assert "config" not in created
    assert created["pending_config"]["config_version"] == 1
    assert created["creator"] == "admin"

    world.builder.hold.set()
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")
    got = await world.ok("GET", "/iris")
    assert "pending_config" not in got
    served = got["config"]["served_entities"][0]
    assert served["name"] == "iris-1"
    assert served["state"]["deployment"] == "DEPLOYMENT_READY"
    assert got["config"]["served_models"][0]["model_name"] == "iris"
    assert got["config"]["traffic_config"]["routes"] == [
        {"served_model_name": "iris-1", "served_entity_name": "iris-1", "traffic_percentage": 100}
    ]
    route = world.gateway.route("iris")
    assert route is not None
    assert len(route.served_entities[0].replicas) == 1


async def test_the_collection_answers_with_and_without_a_trailing_slash(world: World):
    assert await world.ok("GET", "/") == {"endpoints": []}
    await world.ok("POST", "/", {"name": "empty"})
    listed = (await world.ok("GET", ""))["endpoints"]
    assert [e["name"] for e in listed] == ["empty"]
    assert listed[0]["state"]["config_update"] == "NOT_UPDATING"


async def test_an_update_keeps_the_old_config_routed_until_the_new_one_is_ready(world: World):
    await world.ok("POST", "", {"name": "iris", "config": {"served_entities": [entity("1")]}})
    await world.settled("iris")
    world.builder.hold.clear()
    updating = await world.ok("PUT", "/iris/config", {"served_entities": [entity("2")]})
    assert updating["state"]["ready"] == "READY"
    assert updating["state"]["config_update"] == "IN_PROGRESS"
    assert updating["config"]["config_version"] == 1
    assert updating["pending_config"]["config_version"] == 2
    status, code, message = await world.refused("PUT", "/iris/config", {"served_entities": [entity("3")]})
    assert (status, code) == (409, "RESOURCE_CONFLICT")
    assert "being updated" in message

    world.builder.hold.set()
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")
    await world.until(lambda: len(world.worker.replicas) == 1)
    names = [[e.name for e in r.served_entities] for r in world.gateway.history if r.status == "serving"]
    assert all(r.served_entities[0].replicas for r in world.gateway.history if r.status == "serving")
    assert names == sorted(names), "the switch must be monotone"
    assert names[-1] == ["iris-2"]


async def test_a_replica_that_is_stopped_has_time_for_the_longest_stream(world: World):
    await world.ok("POST", "", {"name": "iris", "config": {"served_entities": [entity("1")]}})
    await world.settled("iris")
    [replica] = world.worker.replicas
    await world.ok("PUT", "/iris/config", {"served_entities": [entity("2")]})
    await world.until(lambda: replica in world.worker.graces)
    route = world.gateway.history[-1]
    assert world.worker.graces[replica] > route.timeout_seconds + route.max_stream_seconds


async def test_an_update_under_way_can_be_canceled(world: World):
    await world.ok("POST", "", {"name": "iris", "config": {"served_entities": [entity("1")]}})
    await world.settled("iris")
    assert (await world.refused("POST", "/iris/config:cancel"))[:2] == (409, "RESOURCE_CONFLICT")
    world.builder.hold.clear()
    await world.ok("PUT", "/iris/config", {"served_entities": [entity("2")]})
    canceled = await world.ok("POST", "/iris/config:cancel")
    assert canceled["state"] == {
        "ready": "READY",
        "config_update": "UPDATE_CANCELED",
        "suspend": "NOT_SUSPENDED",
    }
    assert canceled["config"]["config_version"] == 1
    (served,) = canceled["pending_config"]["served_entities"]
    assert served["state"]["deployment"] == "DEPLOYMENT_ABORTED"
    world.builder.hold.set()
    await world.ok("PUT", "/iris/config", {"served_entities": [entity("3")]})
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")
    assert (await world.ok("GET", "/iris"))["config"]["config_version"] == 3


async def test_a_failed_update_leaves_the_old_config_serving_and_the_next_one_works(world: World):
    await world.ok("POST", "", {"name": "iris", "config": {"served_entities": [entity("1")]}})
    await world.settled("iris")
    world.builder.outcome = lambda order: "No package 'foo' exists." if order.model_version == "2" else None
    await world.ok("PUT", "/iris/config", {"served_entities": [entity("2")]})
    assert await world.settled("iris") == ("READY", "UPDATE_FAILED")
    got = await world.ok("GET", "/iris")
    assert got["config"]["config_version"] == 1
    failed = got["pending_config"]["served_entities"][0]["state"]
    assert failed == {
        "deployment": "DEPLOYMENT_FAILED",
        "deployment_state_message": "No package 'foo' exists.",
    }
    route = world.gateway.route("iris")
    assert route is not None
    assert [e.name for e in route.served_entities] == ["iris-1"]
    await world.ok("PUT", "/iris/config", {"served_entities": [entity("3")]})
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")
    assert (await world.ok("GET", "/iris"))["config"]["config_version"] == 3


async def test_a_first_config_that_fails_says_why(world: World):
    world.worker.start_state = lambda launch: (ReplicaState.FAILED, "ValueError: bad pickle")
    await world.ok("POST", "", {"name": "iris", "config": {"served_entities": [entity()]}})
    assert await world.settled("iris") == ("NOT_READY", "UPDATE_FAILED")
    got = await world.ok("GET", "/iris")
    message = got["pending_config"]["served_entities"][0]["state"]["deployment_state_message"]
    assert "ValueError: bad pickle" in message
    route = await world.until(lambda: (r := world.gateway.route("iris")) and r.status == "failed" and r)
    assert "bad pickle" in route.message


async def test_both_families_aliases_and_text_percentages(world: World):
    served = [
        {"model_name": "a.b.iris", "model_version": 1, "scale_to_zero_enabled": True, "name": "one"},
        {"model_name": "iris", "model_version": "@champion", "scale_to_zero_enabled": False},
    ]
    routes = [
        {"served_model_name": "one", "traffic_percentage": "90"},
        {"served_model_name": "iris-2", "traffic_percentage": 10},
    ]
    config = {"served_models": served, "traffic_config": {"routes": routes}}
    created = await world.ok("POST", "", {"name": "two", "config": config})
    assert [e["entity_version"] for e in created["pending_config"]["served_entities"]] == ["1", "2"]
    await world.settled("two")
    route = world.gateway.route("two")
    assert route is not None
    assert [(e.name, e.traffic_percentage) for e in route.served_entities] == [("one", 90), ("iris-2", 10)]


async def test_deleting_frees_the_name_at_once_and_everything_else_soon(world: World):
    await world.ok("POST", "", {"name": "iris", "config": {"served_entities": [entity()]}})
    await world.settled("iris")
    old = world.gateway.route("iris")
    assert old is not None
    assert await world.ok("DELETE", "/iris") == {}
    assert (await world.refused("GET", "/iris"))[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    assert (await world.refused("DELETE", "/iris"))[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    await world.ok("POST", "", {"name": "iris", "config": {"served_entities": [entity("2")]}})
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")
    await world.until(lambda: old.endpoint_id not in world.gateway.routes and len(world.worker.replicas) == 1)


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        ({"name": "a b"}, 400, "INVALID_PARAMETER_VALUE", "Invalid endpoint name"),
        ({}, 400, "INVALID_PARAMETER_VALUE", "name"),
        ({"name": 7}, 400, "INVALID_PARAMETER_VALUE", "name"),
        ("nonsense", 400, "INVALID_PARAMETER_VALUE", ""),
        (
            {"name": "x", "config": {"served_entities": []}},
            400,
            "INVALID_PARAMETER_VALUE",
            "no served entity",
        ),
        (
            {"name": "x", "config": {"served_entities": [entity(workload_size="Gigantic")]}},
            400,
            "INVALID_PARAMETER_VALUE",
            "use one of Small, Medium, Large",
        ),
        (
            {"name": "x", "config": {"served_entities": [entity(environment_vars={"A": 1})]}},
            400,
            "INVALID_PARAMETER_VALUE",
            "config.served_entities[0].environment_vars.A",
        ),
        (
            {"name": "x", "config": {"served_entities": [entity("9")]}},
            404,
            "RESOURCE_DOES_NOT_EXIST",
            "no version 9",
        ),
        (
            {"name": "x", "config": {"served_entities": [entity(external_model={"name": "gpt"})]}},
            501,
            "NOT_IMPLEMENTED",
            "external_model",
        ),
        (
            {"name": "x", "config": {"served_models": [{"model_name": "iris", "model_version": "1"}]}},
            400,
            "INVALID_PARAMETER_VALUE",
            "scaleToZeroEnabled is undefined. Please set it to either true or false.",
        ),
    ],
)
async def test_bad_input_is_refused_and_changes_nothing(world: World, body, status, code, message):
    refused = await world.refused("POST", "", body)
    assert refused[:2] == (status, code)
    assert message in refused[2]
    assert await world.ok("GET", "") == {"endpoints": []}


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x", "description": "a\0b"},
        {"name": "x", "tags": [{"key": "a\0b"}]},
        {"name": "x", "tags": [{"key": "\ud800"}]},
        {"name": "x", "config": {"served_entities": [entity(instance_profile_arn="a\0b")]}},
        {"name": "x", "config": {"served_entities": [entity(environment_vars={"A": "\udfff"})]}},
    ],
)
async def test_text_that_cannot_be_kept_is_refused(world: World, body):
    assert (await world.refused("POST", "", body))[:2] == (400, "INVALID_PARAMETER_VALUE")


async def test_paths_and_numbers_that_mean_nothing_are_refused(world: World):
    await world.ok("POST", "", {"name": "iris"})
    with pytest.raises(NotFound):
        await world.gateway.call("GET", "/iris%00")
    long = "/iris/served-models/x/build-logs?config_version=99999999999"
    assert (await world.refused("GET", long))[:2] == (400, "INVALID_PARAMETER_VALUE")


async def test_a_taken_name_is_refused(world: World):
    await world.ok("POST", "", {"name": "iris"})
    assert (await world.refused("POST", "", {"name": "iris"}))[:2] == (400, "RESOURCE_ALREADY_EXISTS")


async def test_another_workspace_sees_nothing(world: World):
    await world.ok("POST", "", {"name": "iris"})
    other = await world.new_workspace("other")
    assert (await world.gateway.call("GET", "/iris", identity=other)).status == 404
    assert (await world.gateway.call("DELETE", "/iris", identity=other)).status == 404
    assert (await world.gateway.call("GET", "", identity=other)).body == '{"endpoints":[]}'
    assert (await world.gateway.call("GET", "/iris", identity=ADMIN)).status == 200


async def test_unknown_paths_and_methods_are_404_in_our_shape(world: World):
    assert (await world.refused("GET", "/iris/nonsense"))[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    assert (await world.refused("PATCH", "/iris"))[:2] == (404, "RESOURCE_DOES_NOT_EXIST")


async def test_logs_of_the_build_and_of_the_model(world: World):
    await world.ok("POST", "", {"name": "iris", "config": {"served_entities": [entity()]}})
    await world.settled("iris")
    assert await world.ok("GET", "/iris/served-models/iris-1/build-logs") == {"logs": "installing\ndone"}
    assert await world.ok("GET", "/iris/served-models/iris-1/build-logs?config_version=1")
    assert (await world.refused("GET", "/iris/served-models/iris-1/build-logs?config_version=2"))[0] == 404
    assert "hello from the model" in (await world.ok("GET", "/iris/served-models/iris-1/logs"))["logs"]


async def test_a_worker_that_was_restarted_gets_other_replicas(world: World):
    await world.ok("POST", "", {"name": "iris", "config": {"served_entities": [entity()]}})
    await world.settled("iris")
    (lost,) = world.worker.replicas
    world.worker.lose_everything()

    def routed() -> str | None:
        route = world.gateway.route("iris")
        replicas = route.served_entities[0].replicas if route else ()
        return next((r.replica_id for r in replicas if r.replica_id != lost), None)

    # Another id: whoever still waits for an answer of the lost one finds nobody there.
    fresh = await world.until(routed)
    assert list(world.worker.replicas) == [fresh]


async def test_an_endpoint_that_finds_no_place_says_so_and_starts_when_there_is_one(world: World):
    world.worker.capacity_slots = 0
    await world.worker.tell()
    await world.ok("POST", "", {"name": "iris", "config": {"served_entities": [entity()]}})

    async def message() -> str:
        pending = (await world.ok("GET", "/iris"))["pending_config"]
        return pending["served_entities"][0]["state"]["deployment_state_message"]

    async def says_so() -> bool:
        return "No worker has room" in await message()

    await world.until(says_so)
    world.worker.capacity_slots = 64
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")


async def test_a_replica_nobody_asked_for_is_stopped(world: World):
    world.worker.replicas["stray"] = world.worker.replicas.get("stray") or _stray()
    await world.until(lambda: "stray" in world.worker.stopped)


def _stray():
    from tests.factories import observed

    return observed("stray")


async def test_a_controller_that_crashed_mid_deployment_goes_on_where_it_was(world: World):
    world.builder.hold.clear()
    await world.ok("POST", "", {"name": "iris", "config": {"served_entities": [entity()]}})
    await world.until(lambda: world.builder.orders)
    await world.crash_controller()
    world.builder.hold.set()
    await world.start_controller()
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")
    assert len(world.worker.replicas) == 1


async def test_a_restarted_controller_changes_nothing_about_a_ready_endpoint(world: World):
    await world.ok("POST", "", {"name": "iris", "config": {"served_entities": [entity()]}})
    await world.settled("iris")
    ensured, published = list(world.worker.ensured), len(world.gateway.history)
    await world.crash_controller()
    await world.start_controller()
    # Another endpoint getting ready shows that the new controller leads and has looked at both.
    await world.ok("POST", "", {"name": "other", "config": {"served_entities": [entity()]}})
    await world.settled("other")
    assert [r for r in world.gateway.history[published:] if r.name == "iris"] == []
    assert world.worker.ensured[: len(ensured)] == ensured
    assert len(world.worker.ensured) == len(ensured) + 1
    assert world.worker.stopped == []
    assert await world.state("iris") == ("READY", "NOT_UPDATING")


@pytest.mark.parametrize("lose_data", [False, True])
async def test_an_update_reaches_gateways_after_nats_was_restarted(
    world: World, own_nats: NatsServer, lose_data: bool
):
    await world.ok("POST", "", {"name": "iris", "config": {"served_entities": [entity("1")]}})
    await world.settled("iris")
    own_nats.restart(lose_data=lose_data)
    await world.until(world.answers)
    await world.ok("PUT", "/iris/config", {"served_entities": [entity("2")]})
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")

    def routed() -> bool:
        route = world.gateway.route("iris")
        return route is not None and [e.name for e in route.served_entities] == ["iris-2"]

    await world.until(routed)


async def test_a_route_somebody_else_put_is_put_right_again(world: World):
    await world.ok("POST", "", {"name": "iris", "config": {"served_entities": [entity()]}})
    await world.settled("iris")
    right = world.gateway.route("iris")
    assert right is not None
    stale = right.model_copy(update={"served_entities": ()})
    await world.gateway.bus.kv_put(ROUTES_BUCKET, right.endpoint_id, stale)
    await world.until(lambda: stale in world.gateway.history and world.gateway.route("iris") == right)


async def test_twenty_endpoints_at_once(world: World):
    names = [f"e{i}" for i in range(20)]
    config = {"served_entities": [entity(min_provisioned_concurrency=1, max_provisioned_concurrency=1)]}
    for served in config["served_entities"]:
        served.pop("workload_size")
    world.worker.capacity_slots = 200
    await asyncio.gather(*[world.ok("POST", "", {"name": n, "config": config}) for n in names])
    assert {await world.settled(n) for n in names} == {("READY", "NOT_UPDATING")}
    assert len(world.worker.replicas) == 20
