"""Quotas of workspaces: who chooses them, and what gateways are told."""

import asyncpg
import pytest
from tests.integration.controller.conftest import World

WORKSPACES = "/api/2.0/servery/workspaces"
QUOTAS = "/api/2.0/servery/quotas"
OWN = f"{WORKSPACES}/1/quota"


def published(world: World) -> dict[str, int]:
    """What gateways were told, by workspace id."""
    return {key: quota.qps for key, quota in world.gateway.quotas.items()}


async def test_every_workspace_has_the_default_until_an_operator_chooses(world: World):
    other = await world.new_workspace("other")
    listed = {q["workspace_id"]: q["qps"] for q in (await world.ok("GET", QUOTAS))["quotas"]}
    assert listed == {"1": 200, other.workspace_id: 200}
    await world.until(lambda: published(world) == listed)

    path = f"{WORKSPACES}/{other.workspace_id}/quota"
    chosen = await world.ok("PUT", path, {"qps": 3000})
    assert chosen == {
        "workspace_id": other.workspace_id,
        "workspace_name": "other",
        "qps": 3000,
        "default_qps": 200,
        "compute_slots": None,
        "default_compute_slots": None,
    }
    assert await world.ok("GET", path) == chosen
    await world.until(lambda: published(world) == {"1": 200, other.workspace_id: 3000})
    listed = {q["workspace_name"]: q["qps"] for q in (await world.ok("GET", QUOTAS))["quotas"]}
    assert listed["other"] == 3000


async def test_the_default_can_be_chosen_again(world: World):
    await world.ok("PUT", OWN, {"qps": 1})
    await world.until(lambda: published(world) == {"1": 1})
    assert (await world.ok("DELETE", OWN))["qps"] == 200
    await world.until(lambda: published(world) == {"1": 200})
    assert (await world.ok("DELETE", OWN))["qps"] == 200


async def test_one_quota_is_chosen_and_given_back_without_the_other(world: World):
    def both(answer: dict) -> tuple[int, int | None]:
        return answer["qps"], answer["compute_slots"]

    assert both(await world.ok("PUT", OWN, {"qps": 50})) == (50, None)
    assert both(await world.ok("PUT", OWN, {"compute_slots": 64})) == (50, 64)
    assert both(await world.ok("PUT", OWN, {"qps": 60, "compute_slots": 0})) == (60, 0)
    assert both(await world.ok("DELETE", f"{OWN}?quota=qps")) == (200, 0)
    assert both(await world.ok("DELETE", f"{OWN}?quota=compute_slots")) == (200, None)
    await world.ok("PUT", OWN, {"qps": 70, "compute_slots": 8})
    assert both(await world.ok("DELETE", OWN)) == (200, None)
    await world.until(lambda: published(world) == {"1": 200})
    status, code, message = await world.refused("DELETE", f"{OWN}?quota=memory")
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert "compute_slots" in message


@pytest.mark.parametrize("slots", [-1, 1_000_001, 10**30, 1.5, True, None, "many", float("nan"), [], {}])
async def test_a_wrong_compute_quota_is_refused_and_changes_nothing(world: World, slots: object):
    status, code, message = await world.refused("PUT", OWN, {"qps": 5000, "compute_slots": slots})
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert "compute_slots" in message
    assert (await world.ok("GET", OWN))["qps"] == 200


async def test_members_read_the_quota_of_their_workspace_and_only_operators_the_rest(world: World):
    other = await world.new_workspace("other")
    user = await world.new_user("ann")
    assert (await world.ok("GET", OWN, identity=user))["qps"] == 200
    refused = (403, "PERMISSION_DENIED")
    for method, path, body, identity in (
        ("GET", OWN, None, other),
        ("GET", QUOTAS, None, other),
        ("PUT", f"{WORKSPACES}/{other.workspace_id}/quota", {"qps": 5000}, other),
        ("DELETE", f"{WORKSPACES}/{other.workspace_id}/quota", None, other),
        ("PUT", OWN, {"qps": 5000}, user),
    ):
        assert (await world.refused(method, path, body, identity=identity))[:2] == refused
    assert (await world.ok("GET", OWN))["qps"] == 200


@pytest.mark.parametrize(
    "qps", [0, -1, 1_000_001, 10**30, 1.5, True, None, "many", float("nan"), float("inf"), [], {}]
)
async def test_a_wrong_quota_is_refused_with_what_would_be_right(world: World, qps: object):
    status, code, message = await world.refused("PUT", OWN, {"qps": qps})
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert "qps" in message
    assert (await world.ok("GET", OWN))["qps"] == 200


async def test_a_quota_is_missing_or_its_workspace_is_unknown(world: World):
    assert (await world.refused("PUT", OWN, {}))[:2] == (400, "INVALID_PARAMETER_VALUE")
    for method, body in (("GET", None), ("PUT", {"qps": 10}), ("DELETE", None)):
        status, code, message = await world.refused(method, f"{WORKSPACES}/12345/quota", body)
        assert (status, code) == (404, "RESOURCE_DOES_NOT_EXIST")
        assert "12345" in message


async def test_a_workspaces_quota_goes_with_it(world: World):
    other = await world.new_workspace("other")
    await world.ok("PUT", f"{WORKSPACES}/{other.workspace_id}/quota", {"qps": 10})
    await world.until(lambda: published(world) == {"1": 200, other.workspace_id: 10})
    await world.ok("DELETE", f"{WORKSPACES}/{other.workspace_id}")
    await world.until(lambda: published(world) == {"1": 200})


async def test_a_quota_can_be_chosen_again_by_a_controller_that_did_not_see_it_go(world: World):
    await world.ok("PUT", OWN, {"qps": 777})
    await world.ok("DELETE", OWN)
    await world.crash_controller()
    await world.start_controller()
    await world.ok("PUT", OWN, {"qps": 778})
    await world.until(lambda: published(world) == {"1": 778})


async def test_gateways_are_told_of_what_was_chosen_while_nobody_could_tell_them(world: World):
    await world.until(lambda: published(world) == {"1": 200})
    await world.crash_controller()
    database = await asyncpg.connect(world.postgres_url)
    await database.execute("UPDATE workspaces SET quota_qps = 777 WHERE id = '1'")
    await database.close()
    await world.start_controller()
    await world.until(lambda: published(world) == {"1": 777})
    assert (await world.ok("GET", OWN))["qps"] == 777
