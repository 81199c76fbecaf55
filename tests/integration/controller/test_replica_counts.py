"""How many replicas there are, and which: scaled to zero and back, through updates, with starts that fail."""

from tests.integration.controller.conftest import World
from tests.integration.controller.peers import entity

from servery_common.contracts import subjects
from servery_common.contracts.routes import ServedEntityRoute
from servery_common.contracts.scaling import ScaleAnswer, ScaleRequest
from servery_common.contracts.states import ReplicaState


def served(world: World, name: str = "iris") -> dict[str, ServedEntityRoute]:
    route = world.gateway.route(name)
    return {} if route is None else {e.name: e for e in route.served_entities}


async def scale(world: World, desired: int, name: str = "iris") -> None:
    route = world.gateway.route(name)
    assert route is not None
    for one in route.served_entities:
        request = ScaleRequest(
            endpoint_id=route.endpoint_id,
            served_entity_id=one.served_entity_id,
            desired_replicas=desired,
            reason="a test",
        )
        await world.gateway.bus.request(subjects.controller_scale(), request, ScaleAnswer, timeout=5)


async def deploy(world: World, *entities, routes=None) -> None:
    config = {"served_entities": list(entities)} | ({"traffic_config": {"routes": routes}} if routes else {})
    await world.ok("POST", "", {"name": "iris", "config": config})
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")


def split(**shares: int) -> list[dict]:
    return [
        {"served_entity_name": name, "traffic_percentage": percentage} for name, percentage in shares.items()
    ]


async def test_to_zero_and_back(world: World):
    await deploy(world, entity(scale_to_zero_enabled=True))
    await scale(world, 0)
    await world.until(lambda: not world.worker.replicas)
    at_zero = served(world)["iris-1"]
    assert at_zero.holds
    assert at_zero.replicas == ()
    assert await world.state("iris") == ("READY", "NOT_UPDATING")

    await scale(world, 2)  # its range ends at one
    await world.until(lambda: not served(world)["iris-1"].holds)
    assert len(served(world)["iris-1"].replicas) == 1


async def test_a_start_from_zero_that_fails_says_why_and_is_tried_again(world: World):
    await deploy(world, entity(scale_to_zero_enabled=True))
    await scale(world, 0)
    await world.until(lambda: not world.worker.replicas)
    world.worker.start_state = lambda launch: (ReplicaState.FAILED, "MemoryError: too much")
    await scale(world, 1)
    await world.until(lambda: served(world)["iris-1"].problem == "MemoryError: too much")
    state = (await world.ok("GET", "/iris"))["config"]["served_entities"][0]["state"]
    assert state["deployment"] == "DEPLOYMENT_RECOVERING"
    assert "MemoryError: too much" in state["deployment_state_message"]

    world.worker.start_state = lambda launch: (ReplicaState.READY, "")
    await world.until(lambda: served(world)["iris-1"].replicas)
    assert served(world)["iris-1"].problem == ""
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")


async def test_a_changed_split_is_in_force_without_another_replica_or_build(world: World):
    models = [entity("1", name="iris"), entity("2", name="iris")]
    await deploy(world, *models, routes=split(**{"iris-1": 50, "iris-2": 50}))
    replicas, ordered = set(world.worker.replicas), len(world.worker.ensured)
    builds = len(world.builder.orders)
    body = {"served_entities": models, "traffic_config": {"routes": split(**{"iris-1": 10, "iris-2": 90})}}
    await world.ok("PUT", "/iris/config", body)
    await world.until(lambda: served(world)["iris-2"].traffic_percentage == 90)
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")
    assert {r.replica_id for e in served(world).values() for r in e.replicas} == replicas
    assert (len(world.worker.ensured), len(world.builder.orders)) == (ordered, builds)
    assert world.worker.stopped == []
    got = await world.ok("GET", "/iris")
    assert got["config"]["config_version"] == 2
    assert {e["state"]["deployment"] for e in got["config"]["served_entities"]} == {"DEPLOYMENT_READY"}


async def test_a_canary_costs_only_its_own_replica_and_leaves_the_other_alone(world: World):
    await deploy(world, entity("1"))
    (kept,) = world.worker.replicas
    body = {
        "served_entities": [entity("1"), entity("2")],
        "traffic_config": {"routes": split(**{"iris-1": 90, "iris-2": 10})},
    }
    await world.ok("PUT", "/iris/config", body)
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")
    assert [r.replica_id for r in served(world)["iris-1"].replicas] == [kept]
    assert len(world.worker.ensured) == 2
    assert world.worker.stopped == []


async def test_the_same_config_over_again_is_deployed_anew(world: World):
    await deploy(world, entity("1"))
    (before,) = world.worker.replicas
    await world.ok("PUT", "/iris/config", {"served_entities": [entity("1")]})
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")
    await world.until(lambda: before not in world.worker.replicas)
    assert len(world.worker.replicas) == 1


async def test_an_update_starts_with_as_many_replicas_as_serve(world: World):
    await deploy(world, entity("1", workload_size="Medium"))
    await scale(world, 4)
    await world.until(lambda: len(served(world)["iris-1"].replicas) == 4)
    seen: list[int] = []
    await world.ok("PUT", "/iris/config", {"served_entities": [entity("2", workload_size="Medium")]})
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")
    for route in world.gateway.history:
        seen += [len(e.replicas) for e in route.served_entities if e.name == "iris-2"]
    assert seen[0] == 4, "it takes the traffic over with what the traffic needs"


async def test_an_update_of_one_at_zero_is_seen_to_work(world: World):
    await deploy(world, entity("1", scale_to_zero_enabled=True))
    await scale(world, 0)
    await world.until(lambda: not world.worker.replicas)
    await world.ok("PUT", "/iris/config", {"served_entities": [entity("2", scale_to_zero_enabled=True)]})
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")
    assert len(served(world)["iris-2"].replicas) == 1
