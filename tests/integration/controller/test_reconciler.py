"""The loop that claims endpoints, while its process loses the lead."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from tests.factories import config, endpoint, entity

from servery_common.postgres.leases import LeaderLease
from servery_common.postgres.migrate import migrate
from servery_common.postgres.pool import Pool, create_pool
from servery_common.settings import PostgresSettings
from servery_controller.endpoints import config_store, store
from servery_controller.reconcile.hints import Hints
from servery_controller.reconcile.reconcile_step import Term
from servery_controller.reconcile.reconciler import Reconciler
from servery_controller.reconcile.route_publisher import RoutePublisher

PATIENCE = 20


class Steps:
    """Takes the place of steps: remembers what it was given, and ends each as a real one does."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.epochs: asyncio.Queue[int] = asyncio.Queue()

    async def run(self, endpoint_id: str, lock_token: str, term: Term) -> None:
        await store.release(self._pool, endpoint_id, lock_token, generation=None, look_again_seconds=3600)
        self.epochs.put_nowait(term.epoch)


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    pool = await create_pool(PostgresSettings(url=postgres_url))
    await migrate(pool)
    async with pool.acquire() as conn, conn.transaction():
        await store.insert_endpoint(conn, endpoint())
        await config_store.insert_config(conn, "ep1", config(), [entity()])
    yield pool
    await pool.close()


async def lead(pool: Pool, holder: str) -> LeaderLease:
    lease = LeaderLease(pool, "reconciler", holder, seconds=300)
    await lease.acquire()
    return lease


async def test_a_leader_that_is_none_any_more_claims_nothing(pool: Pool):
    """Its claim would keep the endpoint from the next leader, who has dropped the claims that were there."""
    hints, steps = Hints(), Steps(pool)
    unused: Any = None
    routes = RoutePublisher(unused, hints.add)
    routes.caught_up.set()
    step: Any = steps
    loop = Reconciler(pool, unused, routes, hints, step, poll_seconds=0.05, concurrency=4)
    old = await lead(pool, "old")
    running = asyncio.create_task(loop.run(Term(old.epoch, old.guard)))
    try:
        assert await asyncio.wait_for(steps.epochs.get(), PATIENCE) == old.epoch
        await pool.execute("UPDATE leases SET expires_at = '-infinity'")
        new = await lead(pool, "new")
        async with pool.acquire() as conn, conn.transaction():
            await new.guard(conn)
            await store.drop_claims(conn)
        hints.add("ep1")
        await asyncio.wait_for(old.lost.wait(), PATIENCE)
        assert await store.claim_due(pool, ["ep1"], limit=1, lease_seconds=60), "nobody else holds it"
        assert steps.epochs.empty()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
