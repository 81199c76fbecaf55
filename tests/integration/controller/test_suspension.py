"""Stopping and starting endpoints, against real NATS and Postgres."""

from tests.integration.controller.conftest import World
from tests.integration.controller.peers import entity

SUSPENDED = {"ready": "NOT_READY", "config_update": "NOT_UPDATING", "suspend": "SUSPENDED"}


async def deploy(world: World, version: str = "1") -> None:
    config = {"served_entities": [entity(version, environment_vars={"K": "v"})]}
    await world.ok("POST", "", {"name": "iris", "config": config})
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")


async def test_stopping_frees_the_replicas_and_keeps_the_config(world: World):
    await deploy(world)
    stopped = await world.ok("POST", "/iris/config:stop")
    assert stopped["state"] == SUSPENDED
    assert stopped["config"]["config_version"] == 1
    assert stopped["config"]["served_entities"][0]["environment_vars"] == {"K": "v"}
    await world.until(lambda: not world.worker.replicas)
    route = world.gateway.route("iris")
    assert route is not None
    assert route.status == "stopped"
    again = await world.ok("POST", "/iris/config:stop")
    assert again["state"] == SUSPENDED
    assert again["last_updated_timestamp"] == stopped["last_updated_timestamp"], "it was stopped already"


async def test_gateways_hear_of_a_stop_before_a_replica_is_stopped(world: World):
    await deploy(world)
    await world.ok("POST", "/iris/config:stop")
    seen: list[str] = []

    def stopped() -> bool:
        route = world.gateway.route("iris")
        assert route is not None
        seen.append(route.status)
        return bool(world.worker.stopped)

    await world.until(stopped)
    assert seen[-1] == "stopped"


async def test_starting_deploys_the_same_config_as_a_new_version(world: World):
    await deploy(world)
    await world.ok("POST", "/iris/config:stop")
    await world.until(lambda: not world.worker.replicas)
    world.builder.hold.clear()
    started = await world.ok("POST", "/iris/config:start")
    assert started["state"] == {
        "ready": "NOT_READY",
        "config_update": "IN_PROGRESS",
        "suspend": "NOT_SUSPENDED",
    }
    assert (started["config"]["config_version"], started["pending_config"]["config_version"]) == (1, 2)
    world.builder.hold.set()
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")
    got = await world.ok("GET", "/iris")
    assert got["config"]["config_version"] == 2
    assert got["config"]["served_entities"][0]["entity_version"] == "1"
    assert got["state"]["suspend"] == "NOT_SUSPENDED"
    (launch,) = [world.worker.launches[r] for r in world.worker.replicas]
    assert launch.environment_vars == {"K": "v"}


async def test_a_failed_start_can_be_tried_again(world: World):
    await deploy(world)
    await world.ok("POST", "/iris/config:stop")
    world.builder.outcome = lambda order: "No disk."
    await world.ok("POST", "/iris/config:start")
    assert await world.settled("iris") == ("NOT_READY", "UPDATE_FAILED")
    assert (await world.ok("GET", "/iris"))["state"]["suspend"] == "SUSPENDED"
    world.builder.outcome = lambda order: None
    await world.ok("POST", "/iris/config:start")
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")


async def test_a_canceled_start_leaves_the_endpoint_stopped(world: World):
    await deploy(world)
    await world.ok("POST", "/iris/config:stop")
    world.builder.hold.clear()
    await world.ok("POST", "/iris/config:start")
    canceled = await world.ok("POST", "/iris/config:cancel")
    assert canceled["state"] == SUSPENDED | {"config_update": "UPDATE_CANCELED"}
    world.builder.hold.set()


async def test_an_update_of_a_stopped_endpoint_starts_it(world: World):
    await deploy(world)
    await world.ok("POST", "/iris/config:stop")
    await world.ok("PUT", "/iris/config", {"served_entities": [entity("2")]})
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")
    got = await world.ok("GET", "/iris")
    assert got["state"]["suspend"] == "NOT_SUSPENDED"
    assert got["config"]["served_entities"][0]["entity_version"] == "2"


async def test_stopping_after_a_failed_update_forgets_the_failure(world: World):
    await deploy(world)
    world.builder.outcome = lambda order: "No disk."
    await world.ok("PUT", "/iris/config", {"served_entities": [entity("2")]})
    assert await world.settled("iris") == ("READY", "UPDATE_FAILED")
    stopped = await world.ok("POST", "/iris/config:stop")
    assert stopped["state"] == SUSPENDED
    assert "pending_config" not in stopped


async def test_stop_and_start_are_refused_when_they_make_no_sense(world: World):
    await world.ok("POST", "", {"name": "empty"})
    assert (await world.refused("POST", "/empty/config:stop"))[:2] == (400, "BAD_REQUEST")
    assert (await world.refused("POST", "/empty/config:start"))[:2] == (400, "BAD_REQUEST")
    assert (await world.refused("POST", "/none/config:stop"))[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    await deploy(world)
    assert (await world.refused("POST", "/iris/config:start"))[:2] == (400, "BAD_REQUEST")
    world.builder.hold.clear()
    await world.ok("PUT", "/iris/config", {"served_entities": [entity("2")]})
    for verb in ("stop", "start"):
        status, code, message = await world.refused("POST", f"/iris/config:{verb}")
        assert (status, code) == (409, "RESOURCE_CONFLICT")
        assert "IN_PROGRESS" in message
    world.builder.hold.set()


async def test_a_restarted_controller_keeps_a_stopped_endpoint_stopped(world: World):
    await deploy(world)
    await world.ok("POST", "/iris/config:stop")
    await world.crash_controller()
    await world.start_controller()
    await world.until(lambda: not world.worker.replicas)
    assert (await world.ok("GET", "/iris"))["state"] == SUSPENDED
    await world.ok("DELETE", "/iris")
    await world.until(lambda: world.gateway.route("iris") is None)
