"""What a gateway tells of the requests it answered."""

import asyncio

from tests.integration.gateway.conftest import World, eventually
from tests.integration.gateway.peers import Work, endpoint, entity, grant, identity

from servery_common.contracts import subjects
from servery_common.contracts.metrics import EntityMetrics, GatewayMetrics


async def test_answers_and_their_times_are_told_by_served_entity(world: World) -> None:
    told: dict[str, EntityMetrics] = {}

    async def heard(report: GatewayMetrics) -> None:
        assert report.gateway_id == world.gateway.gateway_id
        told.update({one.served_entity_id: one for one in report.entities})

    await world.bus.on_signal(subjects.ALL_GATEWAY_METRICS, GatewayMetrics, heard)

    async def model(work: Work) -> tuple[int, bytes]:
        return (200, b"{}") if b"good" in work.body else (400, b"no")

    replica = await world.replica("rmetrics", model)
    route = endpoint("measured", entity("counted", replica.route()), entity("idle", weight=0))
    counted_id, idle_id = (one.served_entity_id for one in route.served_entities)
    await world.publish(route)
    for body in (b"good", b"good", b"bad"):
        await world.score("measured", body)
    # Nobody takes it: refused after routing, so it counts, but never waited its turn out at a replica.
    assert (
        await world.http.post("/serving-endpoints/measured/served-models/idle/invocations", content=b"{}")
    ).status_code == 503
    await world.score("measured", b"good", headers={"authorization": "Bearer wrong"})
    await eventually(
        lambda: {counted_id, idle_id} <= told.keys() and told[idle_id].last_minute.requests == 1, 10
    )
    metrics = told[counted_id]
    counts = metrics.last_minute
    assert (counts.requests, counts.client_errors, counts.server_errors) == (3, 1, 0)
    assert sum(metrics.latency.counts) == sum(metrics.queue_time.counts) == 3
    assert metrics.latency.sum_ms > 0
    assert (metrics.in_flight, metrics.queued) == (0, 0)
    refused = told[idle_id]
    assert refused.last_minute.server_errors == 1
    assert sum(refused.queue_time.counts) == 0


async def test_totals_are_told_again_and_again(world: World) -> None:
    """Who listens late, or missed a report, knows all after the next one."""
    replica = await world.replica("ragain")
    route = endpoint("again", entity("again", replica.route()))
    served_entity_id = route.served_entities[0].served_entity_id
    await world.publish(route)
    await world.score("again")
    totals: list[int] = []
    twice = asyncio.Event()

    async def heard(report: GatewayMetrics) -> None:
        mine = (one for one in report.entities if one.served_entity_id == served_entity_id)
        totals.extend(sum(one.latency.counts) for one in mine)
        if len(totals) >= 2:
            twice.set()

    await world.bus.on_signal(subjects.ALL_GATEWAY_METRICS, GatewayMetrics, heard)
    await asyncio.wait_for(twice.wait(), 20)
    assert set(totals) == {1}


async def test_every_rejection_is_told_with_its_reason_also_before_a_served_entity_was_chosen(
    world: World,
) -> None:
    told: dict[str, dict[str, int]] = {}

    async def heard(report: GatewayMetrics) -> None:
        told.update({one.endpoint_id: one.counts for one in report.rejections})

    await world.bus.on_signal(subjects.ALL_GATEWAY_METRICS, GatewayMetrics, heard)
    await world.admit(identity("bob"), grant("bobs-token", "bob"))
    one, stopped = endpoint("refusing", entity("alone")), endpoint("stopped", status="stopped")
    await world.publish(one)
    await world.publish(stopped)
    calls = [
        ("refusing", "wrong", 401),
        ("refusing", "bobs-token", 403),
        ("nowhere", "good-token", 404),
        ("stopped", "good-token", 400),
        ("refusing", "good-token", 503),
    ]
    for name, token, status in calls:
        answer = await world.score(name, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == status
    expected = {
        one.endpoint_id: {"permission": 1, "no_replica": 1},
        stopped.endpoint_id: {"not_serving": 1},
        "": {"unauthenticated": 1, "not_found": 1},
    }
    await eventually(lambda: told == expected, 10)
