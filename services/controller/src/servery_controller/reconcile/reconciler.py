"""The reconcile loop: claim due endpoints and step each of them. Only the leader runs it.

Hints say which endpoint to look at now; polling finds the others. Steps of one endpoint come one after the
other, steps of different endpoints run side by side.
"""

import asyncio
from datetime import timedelta

import structlog

from servery_common.backoff import full_jitter
from servery_common.errors import ServeryError
from servery_common.postgres.leases import StaleLeader
from servery_common.postgres.pool import Pool
from servery_controller.compute.backend import ComputeBackend
from servery_controller.endpoints import replica_store, store
from servery_controller.reconcile.hints import Hints
from servery_controller.reconcile.reconcile_step import CLAIM_SECONDS, ReconcileStep, Term
from servery_controller.reconcile.route_publisher import RoutePublisher

log = structlog.get_logger()

FIRST_RETRY_SECONDS = 0.01
"""A hinted endpoint that could not be claimed is tried again within so long, and then with growing pauses."""
ORPHAN_GRACE = timedelta(seconds=60)


class Reconciler:
    """Steps endpoints towards what is wanted."""

    def __init__(
        self,
        pool: Pool,
        backend: ComputeBackend,
        routes: RoutePublisher,
        hints: Hints,
        step: ReconcileStep,
        *,
        poll_seconds: float,
        concurrency: int,
    ) -> None:
        self._pool = pool
        self._backend = backend
        self._routes = routes
        self._hints = hints
        self._step = step
        self._poll_seconds = poll_seconds
        self._concurrency = concurrency

    async def run(self, term: Term) -> None:
        """Reconcile for as long as this process leads; cancel to stop."""
        await self._routes.caught_up.wait()
        async with self._pool.acquire() as conn, conn.transaction():
            await term.check(conn)
            # Whoever led before leads no more: an endpoint it was looking at need not wait for its claim's end.
            await store.drop_claims(conn)
        for endpoint_id in await store.all_endpoint_ids(self._pool):
            self._hints.add(endpoint_id)
        async with asyncio.TaskGroup() as steps:
            running: dict[asyncio.Task[None], str] = {}
            """Endpoint ids by step. One that has ended its claim may be here a moment longer, beside the next one."""
            pauses = full_jitter(FIRST_RETRY_SECONDS, self._poll_seconds)
            while True:
                free = self._concurrency - len(running)
                claimed = await self._claim(free, term)
                for endpoint_id, lock_token in claimed:
                    self._hints.discard(endpoint_id)
                    step = steps.create_task(
                        self._step.run(endpoint_id, lock_token, term), name=f"reconcile {endpoint_id}"
                    )
                    running[step] = endpoint_id
                    step.add_done_callback(running.pop)
                    step.add_done_callback(lambda _: self._hints.wake())
                # A row that somebody writes at this moment is skipped, and nobody says when they are done.
                missed = free > 0 and not self._hints.within(running.values())
                pauses = (
                    pauses if missed and not claimed else full_jitter(FIRST_RETRY_SECONDS, self._poll_seconds)
                )
                await self._hints.wait(next(pauses) if missed else self._poll_seconds)

    async def sweep(self, term: Term) -> None:
        """Stop replicas nobody asked for, and withdraw routes of endpoints nobody knows.

        Rows are read after what is there: what somebody decides to have meanwhile is not taken for an orphan.
        """
        seen = self._backend.observe()
        routed = await self._routes.published()
        wanted = await replica_store.all_replica_ids(self._pool)
        known = set(await store.all_endpoint_ids(self._pool))
        self._hints.retain(known)
        for endpoint_id in set(routed) - known:
            log.warning("orphan_route_withdrawn", endpoint_id=endpoint_id)
            await self._routes.withdraw(endpoint_id)
        for replica_id in (seen.replicas.keys() | seen.waiting) - wanted:
            log.warning("orphan_replica_stopped", replica_id=replica_id)
            try:
                await self._backend.stop(replica_id, ORPHAN_GRACE, term.epoch)
            except ServeryError as error:
                log.warning("replica_not_stopped", replica_id=replica_id, reason=error.message)

    async def _claim(self, limit: int, term: Term) -> list[tuple[str, str]]:
        """Claim endpoints for steps; none when another process leads by now, whose work the claim would hold up."""
        if not limit:
            return []
        try:
            async with self._pool.acquire() as conn, conn.transaction():
                await term.check(conn)
                return await store.claim_due(
                    conn, self._hints.peek(), limit=limit, lease_seconds=CLAIM_SECONDS
                )
        except StaleLeader:
            return []  # Who runs this is told by the lease, and ends it.
