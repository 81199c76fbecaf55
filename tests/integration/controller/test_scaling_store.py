"""Replica counts in Postgres: of many writers at once one writes, and none waits for a reconcile step for ever."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.factories import config, endpoint, entity

from servery_common.contracts.scaling import HeldRequests, ScaleRequest
from servery_common.messaging.testing import InMemoryBus
from servery_common.postgres.migrate import migrate
from servery_common.postgres.pool import Pool, create_pool
from servery_common.settings import PostgresSettings
from servery_controller.domain.endpoint import ConfigPhase, EntityPhase
from servery_controller.endpoints import config_store, events, store
from servery_controller.scaling import scaling_store
from servery_controller.scaling.scaling_service import Scaling


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    pool = await create_pool(PostgresSettings(url=postgres_url))
    await migrate(pool)
    async with pool.acquire() as conn, conn.transaction():
        await store.insert_endpoint(conn, endpoint())
        await config_store.insert_config(
            conn,
            "ep1",
            config(phase=ConfigPhase.ACTIVE),
            [
                entity(phase=EntityPhase.READY, min_replicas=0, desired=0),
                entity("failed", name="failed", phase=EntityPhase.FAILED, min_replicas=0, desired=0),
            ],
        )
    yield pool
    await pool.close()


@pytest.fixture
def scaling(pool: Pool) -> Scaling:
    return Scaling(pool, InMemoryBus())


def held(entity_id: str = "e1", endpoint_id: str = "ep1") -> HeldRequests:
    return HeldRequests(endpoint_id=endpoint_id, served_entity_id=entity_id, held=12)


async def desired(pool: Pool, entity_id: str = "e1") -> int | None:
    return await pool.fetchval("SELECT desired_replicas FROM served_entities WHERE id = $1", entity_id)


async def test_of_twenty_wakes_at_once_one_writes(pool: Pool, scaling: Scaling):
    woken = await asyncio.gather(*[scaling.wake(held()) for _ in range(20)])
    assert sorted(woken) == [False] * 19 + [True]
    assert await desired(pool) == 1
    assert len(await scaling_store.newest(pool, "ep1", 10)) == 1
    assert await pool.fetchval("SELECT count(*) FROM endpoint_events") == 1


async def test_wakes_and_scale_requests_at_once_leave_a_history_without_gaps(pool: Pool, scaling: Scaling):
    def scale(count: int) -> ScaleRequest:
        return ScaleRequest(endpoint_id="ep1", served_entity_id="e1", desired_replicas=count, reason="load")

    for _ in range(3):
        await asyncio.gather(
            *[scaling.wake(held()) for _ in range(4)], *[scaling.scale(scale(i % 5)) for i in range(8)]
        )
    history = [kept.decision for kept in reversed(await scaling_store.newest(pool, "ep1", 1000))]
    assert [d.before for d in history] == [0, *(d.after for d in history[:-1])]
    assert history[-1].after == await desired(pool)


async def test_what_cannot_be_woken_is_left_alone(pool: Pool, scaling: Scaling):
    for asked in (held("failed"), held("none"), held(endpoint_id="another")):
        assert not await scaling.wake(asked)
    async with pool.acquire() as conn:
        await store.mark_deleted(conn, "ep1")
    assert not await scaling.wake(held())
    assert await desired(pool) == await desired(pool, "failed") == 0
    assert await scaling_store.newest(pool, "ep1", 10) == []


async def test_a_wake_makes_the_endpoint_due(pool: Pool, scaling: Scaling):
    await pool.execute("UPDATE endpoints SET due_at = now() + interval '1 hour'")
    assert await scaling.wake(held())
    assert await pool.fetchval("SELECT due_at <= now() FROM endpoints")


async def test_a_wake_waits_for_the_step_that_holds_the_endpoint_and_the_step_does_not_wait_for_it(
    pool: Pool, scaling: Scaling
):
    """A step locks the endpoint, then writes its served entities; in the other order the two would deadlock."""
    [(_, token)] = await store.claim_due(pool, [], limit=1, lease_seconds=30)
    async with pool.acquire() as conn, conn.transaction():
        assert await store.still_owned(conn, "ep1", token, 1)
        waking = asyncio.create_task(scaling.wake(held()))
        waiting = """SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock'"""
        for _ in range(500):
            if await pool.fetchval(waiting):
                break
            await asyncio.sleep(0.01)
        await config_store.update_entity(conn, entity(phase=EntityPhase.READY, message="seen", desired=0))
    assert await waking


async def test_decisions_go_with_their_endpoint(pool: Pool, scaling: Scaling):
    await scaling.wake(held())
    async with pool.acquire() as conn:
        await store.delete_endpoint(conn, "ep1")
    assert await pool.fetchval("SELECT count(*) FROM scaling_decisions") == 0


async def test_scaling_events_push_out_no_others(
    pool: Pool, scaling: Scaling, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(events, "KEPT_PER_ENDPOINT", 2)
    await pool.execute(
        """INSERT INTO endpoint_events (endpoint_id, event_type, status, message)
           SELECT 'ep1', 'ENDPOINT_UPDATE_EVENT', 'SUCCEEDED', 'update ' || n FROM generate_series(1, 2) AS n"""
    )
    for count in (1, 2, 3, 4):
        request = ScaleRequest(
            endpoint_id="ep1", served_entity_id="e1", desired_replicas=count, reason=f"reason {count}"
        )
        await scaling.scale(request)
    rows = await pool.fetch("SELECT message FROM endpoint_events ORDER BY id")
    assert [row["message"] for row in rows] == [
        "update 1",
        "update 2",
        "Scaled from 2 to 3 replicas: reason 3",
        "Scaled from 3 to 4 replicas: reason 4",
    ]
