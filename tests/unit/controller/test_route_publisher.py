import asyncio

import pytest

from servery_common.contracts.routes import EndpointRoute
from servery_common.contracts.subjects import ROUTES_BUCKET
from servery_common.errors import Conflict
from servery_common.messaging.testing import InMemoryBus
from servery_controller.reconcile.route_publisher import RoutePublisher


def route(message: str) -> EndpointRoute:
    return EndpointRoute(
        endpoint_id="ep1", workspace_id="1", name="iris", status="deploying", message=message
    )


@pytest.fixture
async def changed() -> list[str]:
    return []


@pytest.fixture
async def bus() -> InMemoryBus:
    return InMemoryBus()


@pytest.fixture
async def publisher(bus: InMemoryBus, changed: list[str]):
    publisher = RoutePublisher(bus, changed.append)
    following = asyncio.create_task(publisher.follow())
    await publisher.caught_up.wait()
    yield publisher
    following.cancel()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_was_published_shows_and_is_not_a_change_of_somebody_else(
    publisher: RoutePublisher, changed: list[str]
):
    await publisher.publish(route("a"), over=publisher.revision("ep1"))
    assert publisher.shows(route("a"))
    assert not publisher.shows(route("b"))
    await settle()
    assert changed == []


async def test_a_controller_that_was_paused_cannot_replace_what_came_meanwhile(
    bus: InMemoryBus, publisher: RoutePublisher, monkeypatch: pytest.MonkeyPatch
):
    counted: list[str] = []
    monkeypatch.setattr("servery_controller.reconcile.route_publisher.count_stale_write", counted.append)
    before = publisher.revision("ep1")
    await bus.kv_put(ROUTES_BUCKET, "ep1", route("newer"))
    with pytest.raises(Conflict):
        await publisher.publish(route("stale"), over=before)
    assert bus.buckets[ROUTES_BUCKET]["ep1"] == route("newer")
    assert counted == ["route"]


async def test_what_somebody_else_wrote_is_noticed(
    bus: InMemoryBus, publisher: RoutePublisher, changed: list[str]
):
    await publisher.publish(route("mine"), over=0)
    await bus.kv_put(ROUTES_BUCKET, "ep1", route("theirs"))
    await settle()
    assert changed == ["ep1"]
    assert publisher.shows(route("theirs"))
    await publisher.publish(route("mine"), over=publisher.revision("ep1"))
    assert bus.buckets[ROUTES_BUCKET]["ep1"] == route("mine")
