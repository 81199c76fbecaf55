"""Claims, generations and constraints of the controller's tables."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from tests.factories import config, endpoint, entity

from servery_common.errors import AlreadyExists
from servery_common.postgres.migrate import migrate
from servery_common.postgres.pool import Pool, create_pool
from servery_common.settings import PostgresSettings
from servery_controller.domain.endpoint import ConfigPhase
from servery_controller.endpoints import config_store, store


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    pool = await create_pool(PostgresSettings(url=postgres_url))
    await migrate(pool)
    yield pool
    await pool.close()


@pytest.fixture
async def endpoint_id(pool: Pool) -> str:
    async with pool.acquire() as conn, conn.transaction():
        await store.insert_endpoint(conn, endpoint())
        await config_store.insert_config(conn, "ep1", config(), [entity()])
    return "ep1"


async def claim(pool: Pool, *hints: str, lease: float = 30) -> list[tuple[str, str]]:
    return await store.claim_due(pool, hints, limit=10, lease_seconds=lease)


async def test_a_due_endpoint_is_claimed_by_one_only(pool: Pool, endpoint_id: str):
    claims = await asyncio.gather(*[claim(pool) for _ in range(5)])
    assert sorted(len(c) for c in claims) == [0, 0, 0, 0, 1]


async def test_an_expired_claim_is_taken_over_and_the_old_owner_is_refused(pool: Pool, endpoint_id: str):
    [(_, first)] = await claim(pool, lease=0)
    [(_, second)] = await claim(pool)
    async with pool.acquire() as conn, conn.transaction():
        assert not await store.still_owned(conn, endpoint_id, first, 1)
        assert await store.still_owned(conn, endpoint_id, second, 1)
    await store.release(pool, endpoint_id, first, generation=1, look_again_seconds=0)
    assert await claim(pool) == [], "a stale release must not free the new owner's claim"


async def test_a_change_made_while_a_step_ran_keeps_the_endpoint_due(pool: Pool, endpoint_id: str):
    [(_, token)] = await claim(pool)
    async with pool.acquire() as conn, conn.transaction():
        await store.touch_endpoint(conn, endpoint_id)
        assert not await store.still_owned(conn, endpoint_id, token, 1), "its result must be dropped"
    await store.release(pool, endpoint_id, token, generation=1, look_again_seconds=3600)
    assert len(await claim(pool)) == 1


async def test_a_released_endpoint_rests_unless_it_is_hinted_at(pool: Pool, endpoint_id: str):
    [(_, token)] = await claim(pool)
    await store.release(pool, endpoint_id, token, generation=1, look_again_seconds=3600)
    loaded = (await store.load_deployments(pool, [endpoint_id]))[endpoint_id]
    assert loaded.endpoint.observed_generation == 1
    assert await claim(pool) == []
    assert len(await claim(pool, endpoint_id)) == 1


async def test_the_database_allows_one_active_and_one_pending_config(pool: Pool, endpoint_id: str):
    for phase in (ConfigPhase.PENDING, ConfigPhase.ACTIVE):
        async with pool.acquire() as conn:
            await config_store.update_config_phase(conn, endpoint_id, 1, phase)
            with pytest.raises(asyncpg.UniqueViolationError):
                await config_store.insert_config(
                    conn, endpoint_id, config(2, phase), [entity("e2", version=2)]
                )


async def test_a_name_is_free_again_once_its_endpoint_is_deleted(pool: Pool, endpoint_id: str):
    async with pool.acquire() as conn:
        with pytest.raises(AlreadyExists):
            await store.insert_endpoint(conn, endpoint(id="ep2"))
        await store.mark_deleted(conn, endpoint_id)
        await store.insert_endpoint(conn, endpoint(id="ep2"))
    assert await store.find_endpoint(pool, "1", "iris") == "ep2"
