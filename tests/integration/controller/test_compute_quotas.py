"""Never more replicas than quotas and workers hold, and nobody starved: against real NATS and Postgres."""

import asyncio
from typing import Any

import pytest
from tests.integration.controller.conftest import World
from tests.integration.controller.peers import ADMIN, entity
from tests.integration.controller.test_scaling import deploy, page, routed, scale, scaling_events

from servery_common.contracts.access import Identity
from servery_common.contracts.states import ReplicaState

OWN = "/api/2.0/servery/workspaces/1/quota"


async def message(
    world: World, name: str = "iris", config: str = "config", *, identity: Identity = ADMIN
) -> str:
    answer = await world.ok("GET", f"/{name}", identity=identity)
    return answer[config]["served_entities"][0]["state"]["deployment_state_message"]


async def said(world: World, text: str, name: str = "iris", config: str = "config", **caller: Any) -> str:
    """Wait until a served entity says this."""

    async def found() -> str:
        told = await message(world, name, config, **caller)
        return told if text in told else ""

    return await world.until(found)


async def test_a_quota_that_is_used_up_says_so_and_what_waits_goes_on_when_it_is_raised(world: World):
    assert (await world.ok("PUT", OWN, {"compute_slots": 8}))["compute_slots"] == 8
    await deploy(world)
    await scale(world, "iris", 4)
    told = await said(world, "Has 2 of 4 replicas.")
    assert "The workspace's compute quota is used up: 8 of 8 slots are used" in told
    assert "servery quota set compute=N" in told
    assert await world.state("iris") == ("READY", "NOT_UPDATING")
    assert len(world.worker.replicas) == 2
    shown = await page(world)
    assert shown["compute"][0] == {"kind": "workspace", "name": "1", "slots": 8, "used": 8}
    assert (
        shown["served_entities"][0]["waiting_replicas"],
        shown["served_entities"][0]["ready_replicas"],
    ) == (2, 2)

    await world.ok("PUT", OWN, {"compute_slots": 64})
    await world.until(lambda: routed(world, "iris", desired=4, ready=4))

    async def says_nothing() -> bool:
        return await message(world) == ""

    await world.until(says_nothing)


async def test_a_first_deployment_waits_for_the_quota_and_says_so(world: World):
    await world.ok("PUT", OWN, {"compute_slots": 0})
    await world.ok("POST", "", {"name": "iris", "config": {"served_entities": [entity("1")]}})
    told = await said(world, "0 of 0 slots are used", config="pending_config")
    assert told.startswith("Waiting for a place for a replica.")
    assert not world.worker.ensured
    await world.ok("DELETE", f"{OWN}?quota=compute_slots")
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")


async def test_an_update_needs_no_larger_quota(world: World):
    await world.ok("PUT", OWN, {"compute_slots": 4})
    await deploy(world)
    await world.ok("PUT", "/iris/config", {"served_entities": [entity("2")]})
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")
    await world.ok("POST", "", {"name": "other", "config": {"served_entities": [entity("1")]}})
    await said(world, "4 of 4 slots are used", "other", "pending_config")


async def test_what_runs_goes_on_when_a_quota_is_lowered(world: World):
    await deploy(world)
    await scale(world, "iris", 3)
    await world.until(lambda: routed(world, "iris", desired=3, ready=3))
    await world.ok("PUT", OWN, {"compute_slots": 4})
    await scale(world, "iris", 4)
    await said(world, "12 of 4 slots are used")
    assert len(world.worker.replicas) == 3
    assert not world.worker.stopped


async def test_a_region_has_a_quota_for_all_its_workspaces(world: World, monkeypatch: pytest.MonkeyPatch):
    await world.crash_controller()
    monkeypatch.setenv("SERVERY_CONTROLLER_REGION_COMPUTE_SLOTS", "eu-west-1=4, us=64")
    monkeypatch.setenv("SERVERY_CONTROLLER_WORKSPACE_COMPUTE_SLOTS", "8")
    await world.start_controller()
    one = await world.new_workspace("one", region="eu-west-1")
    two = await world.new_workspace("two", region="eu-west-1")
    body = {"name": "iris", "config": {"served_entities": [entity("1")]}}
    await world.ok("POST", "", body, identity=one)

    async def ready() -> bool:
        return (await world.ok("GET", "/iris", identity=one))["state"]["ready"] == "READY"

    await world.until(ready)
    await world.ok("POST", "", body, identity=two)
    told = await said(world, "compute quota of region 'eu-west-1'", config="pending_config", identity=two)
    assert "4 of 4 slots are used" in told
    await world.ok("POST", "", body)  # in no region
    assert await world.settled("iris") == ("READY", "NOT_UPDATING")
    path = f"/api/2.0/servery/workspaces/{two.workspace_id}/quota"
    quota = await world.ok("GET", path, identity=two)
    assert (quota["compute_slots"], quota["default_compute_slots"]) == (8, 8)
    await world.ok("DELETE", "/iris", identity=one)

    async def served() -> bool:
        return (await world.ok("GET", "/iris", identity=two))["state"]["ready"] == "READY"

    await world.until(served)


async def test_a_small_endpoint_gets_the_place_of_an_extra_of_a_big_one(world: World):
    world.worker.capacity_slots = 16
    await world.worker.tell()
    await deploy(world, "big")
    await scale(world, "big", 4)
    await world.until(lambda: routed(world, "big", desired=4, ready=4))
    most: list[int] = []
    start_state = world.worker.start_state

    def counted(launch: Any) -> tuple[ReplicaState, str]:
        most.append(len(world.worker.replicas | {launch.replica_id: None}))
        return start_state(launch)

    world.worker.start_state = counted
    await deploy(world, "small")
    assert max(most) <= 4, "never more than the worker holds"
    reason = "given back, as the first replica of 'iris-1' of endpoint 'small' finds no room"
    assert (await scaling_events(world, "big"))[0] == f"Scaled from 4 to 3 replicas: {reason}"
    newest = (await page(world, "big"))["decisions"][0]
    assert (newest["before"], newest["after"], newest["decided_by"]) == (4, 3, "capacity")
    await said(world, "Has 3 of 4 replicas. No worker has room", "big")
    assert len(world.worker.stopped) == 1

    await world.ok("DELETE", "/small")
    await world.until(lambda: routed(world, "big", desired=4, ready=4))


async def test_many_endpoints_at_once_take_no_more_than_there_is(world: World):
    world.worker.capacity_slots = 12
    await world.worker.tell()
    names = [f"e{n}" for n in range(8)]
    config = {"served_entities": [entity("1")]}
    await asyncio.gather(*[world.ok("POST", "", {"name": n, "config": config}) for n in names])

    async def waiting(names: list[str]) -> list[str]:
        answers = [await world.ok("GET", f"/{name}") for name in names]
        return [
            a["name"]
            for a in answers
            if "pending_config" in a
            and "No worker has room"
            in a["pending_config"]["served_entities"][0]["state"]["deployment_state_message"]
        ]

    async def five_wait() -> list[str]:
        found = await waiting(names)
        return found if len(found) == 5 else []

    left = await world.until(five_wait)
    await world.until(lambda: len(world.worker.replicas) == 3)
    assert len(set(world.worker.ensured)) == 3, "nothing was ordered in vain"
    served = next(name for name in names if name not in left)
    await world.ok("DELETE", f"/{served}")

    async def four_wait() -> bool:
        return len(await waiting(left)) == 4

    await world.until(four_wait)
    await world.until(lambda: len(world.worker.replicas) == 3)
