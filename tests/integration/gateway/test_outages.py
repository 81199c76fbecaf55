"""NATS or the controller away, data lost, the gateway restarted: what goes on and what is refused, how soon."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from tests.infrastructure import NatsServer
from tests.integration.gateway.conftest import AT_ONCE, World, eventually
from tests.integration.gateway.peers import endpoint, entity


@pytest.fixture(autouse=True)
async def running_nats(nats_server: NatsServer) -> AsyncIterator[None]:
    nats_server.resume()
    yield
    nats_server.resume()


async def test_requests_in_flight_fail_at_once_when_nats_dies_and_scoring_resumes_with_it(
    patient_world: World,
) -> None:
    world = patient_world
    await world.allow("7", 100_000)  # a quick machine answers more than the default quota

    async def model(work):
        await asyncio.sleep(0.02)
        return 200, b"{}"

    replica = await world.replica("o1", model)
    await world.publish(endpoint("kill", entity("m-1", replica.route(slots=8)), max_queued=200))
    slowest, statuses, stop = 0.0, [], False

    async def client() -> None:
        nonlocal slowest
        while not stop:
            began = time.monotonic()
            statuses.append((await world.score("kill")).status_code)
            slowest = max(slowest, time.monotonic() - began)
            if statuses[-1] != 200:
                await asyncio.sleep(0.05)

    clients = [asyncio.create_task(client()) for _ in range(16)]
    await eventually(lambda: statuses.count(200) > 50)
    world.server.kill()
    await eventually(lambda: statuses.count(503) > 16)
    assert (await world.http.get("/readyz")).status_code == 503
    assert (await world.http.get("/healthz")).status_code == 200
    world.server.start()
    done = statuses.count(200)
    await eventually(lambda: statuses.count(200) > done + 50, 10)
    stop = True
    await asyncio.gather(*clients)
    assert set(statuses) == {200, 503}
    assert slowest < AT_ONCE
    assert world.gateway.dispatcher.unfinished == 0


async def test_a_gateway_that_starts_without_nats_knows_its_routes_and_scores_when_it_returns(
    bare_world: World,
) -> None:
    world = bare_world
    await world.connect_bus()
    await world.start_gateway()
    replica = await world.replica("o2")
    await world.publish(endpoint("known", entity("m-1", replica.route())))
    assert (await world.score("known")).status_code == 200
    await world.gateway.stop()
    await world.stop_gateway()
    files = list(world.directory.iterdir())
    assert [oct(file.stat().st_mode & 0o777) for file in files] == ["0o600"]

    world.server.kill()
    await world.start_gateway()
    assert (await world.score("known")).status_code == 503
    assert (await world.score("unknown")).status_code == 404
    assert (await world.score("known", headers={"authorization": "Bearer x"})).status_code == 401
    assert (await world.http.get("/.well-known/databricks-config")).status_code == 200
    management = await world.http.get("/api/2.0/serving-endpoints")
    assert (management.status_code, management.headers["retry-after"]) == (503, "1")
    world.server.start()
    await scores_again(world, "known")


async def test_routes_outlive_the_loss_of_all_that_nats_had_stored(world: World) -> None:
    replica = await world.replica("o3")
    await world.publish(endpoint("survivor", entity("m-1", replica.route())))
    incarnation = world.gateway.table.snapshot.incarnations["routes"]
    world.server.restart(lose_data=True)
    await eventually(lambda: world.gateway.table.snapshot.incarnations["routes"] != incarnation, 15)
    await eventually(lambda: world.gateway.why_not_ready() is None, 15)
    await scores_again(world, "survivor")


async def test_a_frozen_nats_does_not_hold_a_request_past_its_deadline(world: World) -> None:
    deadline = 1.0
    replica = await world.replica("o4")
    await world.publish(endpoint("frozen", entity("m-1", replica.route()), timeout_seconds=deadline))
    world.server.pause()
    began = time.monotonic()
    answer = await world.score("frozen")
    assert answer.status_code in (503, 504)
    assert time.monotonic() - began < deadline + 4, (
        "settling takes a second at most, the rest is for a loaded machine"
    )


async def test_a_stopping_gateway_finishes_what_it_took(world: World) -> None:
    release = asyncio.Event()

    async def model(work):
        await release.wait()
        return 200, b"{}"

    replica = await world.replica("o5", model)
    await world.publish(endpoint("stopping", entity("m-1", replica.route())))
    call = asyncio.create_task(world.score("stopping"))
    await eventually(lambda: len(replica.ran) == 1)
    stopping = asyncio.create_task(world.gateway.stop())
    await asyncio.sleep(0.2)
    assert world.gateway.why_not_ready() == "stopping"
    assert not stopping.done()
    release.set()
    assert (await call).status_code == 200
    await asyncio.wait_for(stopping, 3)


async def scores_again(world: World, name: str) -> None:
    """Agents reconnect in their own time; requests are refused until then."""
    async with asyncio.timeout(10):
        while (answer := await world.score(name)).status_code != 200:
            assert answer.status_code == 503
            await asyncio.sleep(0.05)
