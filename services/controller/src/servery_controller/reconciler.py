"""The reconcile loop: claim due endpoints, load, plan, act, apply.

A thin loop around ``domain.planning.plan``. Only the leader runs it; every write checks that it still leads
and still holds the endpoint's claim. Effects are idempotent and come before the rows that say they happened,
so a crash anywhere is repaired by the next step.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog
from opentelemetry import trace

from servery_common.contracts import subjects
from servery_common.contracts.builds import BuildStatus, DescribeBuild
from servery_common.contracts.replicas import ReplicaLaunch
from servery_common.errors import ServeryError, Unavailable
from servery_common.messaging.port import Bus
from servery_common.postgres import outbox
from servery_common.postgres.leases import StaleLeader
from servery_common.postgres.pool import OUTAGE, Connection, Pool
from servery_controller import store
from servery_controller.compute.backend import ComputeBackend
from servery_controller.domain.endpoint import (
    ConfigPhase,
    Deployment,
    EntityPhase,
    Observation,
    Replica,
    ServedEntity,
)
from servery_controller.domain.planning import BUSY, Plan, plan, with_placement_problem
from servery_controller.domain.sizes import SLOTS_PER_REPLICA
from servery_controller.endpoint_service import build_order
from servery_controller.hints import Hints
from servery_controller.route_publisher import RoutePublisher

log = structlog.get_logger()
tracer = trace.get_tracer(__name__)

CLAIM_SECONDS = 30.0
"""A claim outlives the slowest step; a controller that died in one is overtaken after this."""
DESCRIBE_SECONDS = 2.0
DRAIN_MARGIN = timedelta(seconds=5)
"""A draining replica gets the endpoint's longest request and this much more."""

CheckLeader = Callable[[Connection], Awaitable[None]]


class Reconciler:
    """Steps endpoints towards what is wanted. ``outbox_hint`` wakes the relay after a write."""

    def __init__(
        self,
        pool: Pool,
        bus: Bus,
        backend: ComputeBackend,
        routes: RoutePublisher,
        hints: Hints,
        outbox_hint: asyncio.Event,
        *,
        poll_seconds: float,
        concurrency: int,
    ) -> None:
        self._pool = pool
        self._bus = bus
        self._backend = backend
        self._routes = routes
        self._hints = hints
        self._outbox_hint = outbox_hint
        self._poll_seconds = poll_seconds
        self._concurrency = concurrency

    async def run(self, epoch: int, check_leader: CheckLeader) -> None:
        """Reconcile for as long as this process leads with ``epoch``; cancel to stop."""
        self._routes.forget()
        for endpoint_id in await store.all_endpoint_ids(self._pool):
            self._hints.add(endpoint_id)
        async with asyncio.TaskGroup() as steps:
            running: set[asyncio.Task[None]] = set()
            while True:
                free = self._concurrency - len(running)
                claimed = (
                    await store.claim_due(
                        self._pool, self._hints.peek(), limit=free, lease_seconds=CLAIM_SECONDS
                    )
                    if free
                    else []
                )
                for endpoint_id, lock_token in claimed:
                    self._hints.discard(endpoint_id)
                    step = steps.create_task(
                        self._step(endpoint_id, lock_token, epoch, check_leader),
                        name=f"reconcile {endpoint_id}",
                    )
                    running.add(step)
                    step.add_done_callback(running.discard)
                    step.add_done_callback(lambda _: self._hints.wake())
                await self._hints.wait(self._poll_seconds)

    async def sweep(self, epoch: int) -> None:
        """Stop replicas nobody asked for, and withdraw routes of endpoints nobody knows."""
        seen = self._backend.observe()
        if not seen.complete:
            return
        # Rows are read after the observation: a replica decided meanwhile is not taken for an orphan.
        wanted = await store.all_replica_ids(self._pool)
        for replica_id in seen.replicas.keys() - wanted:
            log.warning("orphan_replica_stopped", replica_id=replica_id)
            await self._backend.stop(replica_id, timedelta(seconds=60), epoch)
        known = set(await store.all_endpoint_ids(self._pool))
        self._hints.retain(known)
        for endpoint_id in await self._routes.withdraw_all_but(known):
            log.warning("orphan_route_withdrawn", endpoint_id=endpoint_id)

    async def _step(self, endpoint_id: str, lock_token: str, epoch: int, check_leader: CheckLeader) -> None:
        """One step of one endpoint. Never raises: what failed is logged and tried again."""
        generation: int | None = None
        look_again = BUSY
        with tracer.start_as_current_span("reconcile", attributes={"servery.endpoint_id": endpoint_id}):
            try:
                deployment = (await store.load_deployments(self._pool, [endpoint_id])).get(endpoint_id)
                if deployment is None:
                    return
                seen = await self._observe(deployment)
                step = plan(deployment, seen, datetime.now(UTC))
                step = await self._act(deployment, step, epoch)
                if await self._apply(deployment, step, lock_token, check_leader):
                    generation, look_again = deployment.endpoint.generation, step.look_again
            except (ServeryError, StaleLeader, *OUTAGE) as error:
                log.warning("reconcile_postponed", endpoint_id=endpoint_id, reason=str(error) or repr(error))
            except Exception:
                log.exception("reconcile_failed", endpoint_id=endpoint_id)
            finally:
                await self._release(endpoint_id, lock_token, generation, look_again)

    async def _release(
        self, endpoint_id: str, lock_token: str, generation: int | None, look_again: timedelta
    ) -> None:
        try:
            await store.release(
                self._pool,
                endpoint_id,
                lock_token,
                generation=generation,
                look_again_seconds=look_again.total_seconds(),
            )
        except OUTAGE as error:  # the claim expires by itself
            log.warning("claim_release_failed", endpoint_id=endpoint_id, error=repr(error))

    async def _observe(self, deployment: Deployment) -> Observation:
        seen = self._backend.observe()
        building = [e for e in deployment.entities if e.phase is EntityPhase.BUILDING]
        builds: dict[str, BuildStatus] = {}
        for entity in building:
            try:
                builds[entity.build_id] = await self._bus.request(
                    subjects.builder_describe(),
                    DescribeBuild(build_id=entity.build_id),
                    BuildStatus,
                    timeout=DESCRIBE_SECONDS,
                )
            except Unavailable as error:
                log.info("builder_unavailable", endpoint_id=deployment.endpoint.id, reason=error.message)
        return Observation(replicas=seen.replicas, complete=seen.complete, builds=builds)

    async def _act(self, deployment: Deployment, step: Plan, epoch: int) -> Plan:
        """Carry out the effects. Returns the step with what they showed, for the rows."""
        for replica, entity in step.ensure:
            problem = await self._ensure(deployment, replica, entity, epoch)
            if problem is not None:
                step = with_placement_problem(step, entity, problem)
        if step.route is not None and await self._routes.publish(step.route, epoch):
            log.info(
                "route_published",
                endpoint_id=deployment.endpoint.id,
                status=step.route.status,
                replicas=sum(len(e.replicas) for e in step.route.served_entities),
            )
        if step.withdraw_route:
            await self._routes.withdraw(deployment.endpoint.id)
        grace = timedelta(seconds=deployment.endpoint.timeout_seconds) + DRAIN_MARGIN
        for replica in step.stop:
            await self._backend.stop(replica.id, grace, epoch)
        return step

    async def _ensure(
        self, deployment: Deployment, replica: Replica, entity: ServedEntity, epoch: int
    ) -> str | None:
        """Order one replica. Returns why it could not be placed.

        That must not keep the others, or the route, from being looked after, so it is not raised.
        """
        if entity.artifacts is None:
            raise AssertionError(f"served entity {entity.id} has replicas but was never built")
        try:
            await self._backend.ensure(
                ReplicaLaunch(
                    replica_id=replica.id,
                    endpoint_id=deployment.endpoint.id,
                    endpoint_name=deployment.endpoint.name,
                    served_entity_id=entity.id,
                    served_entity_name=entity.spec.name,
                    artifacts=entity.artifacts,
                    environment_vars=dict(entity.spec.environment_vars),
                    slots=SLOTS_PER_REPLICA,
                    timeout_seconds=deployment.endpoint.timeout_seconds,
                    epoch=epoch,
                )
            )
        except ServeryError as error:
            log.warning("replica_not_placed", replica_id=replica.id, reason=error.message)
            return error.message
        return None

    async def _apply(
        self, deployment: Deployment, step: Plan, lock_token: str, check_leader: CheckLeader
    ) -> bool:
        """Write what the step decided, in one transaction. False when the step was overtaken."""
        endpoint_id = deployment.endpoint.id
        async with self._pool.acquire() as conn, conn.transaction():
            await check_leader(conn)
            if not await store.still_owned(conn, endpoint_id, lock_token, deployment.endpoint.generation):
                log.info("stale_step_dropped", endpoint_id=endpoint_id)
                self._hints.add(endpoint_id)
                return False
            for entity in step.entities:
                await store.update_entity(conn, entity)
            # The config that loses the traffic first: there may be only one ACTIVE at any moment.
            for config in sorted(step.configs, key=lambda c: c.phase is ConfigPhase.ACTIVE):
                await store.update_config_phase(conn, endpoint_id, config.version, config.phase)
            for entity in step.order_builds:
                await store.build_requested_again(conn, entity.id)
                await outbox.append(
                    conn, subjects.build_job(entity.build_id), build_order(endpoint_id, entity)
                )
            for entity_id, count in step.new_replicas:
                for _ in range(count):
                    await store.insert_replica(conn, entity_id)
            await store.mark_stopping(conn, step.stopping)
            await store.delete_replicas(conn, step.gone)
            if step.forget_endpoint:
                await store.delete_endpoint(conn, endpoint_id)
        _log_changes(deployment, step)
        if step.order_builds:
            self._outbox_hint.set()
        if step.new_replicas or step.configs or step.entities or step.stopping:
            self._hints.add(endpoint_id)  # the next step has something to do at once
        return True


def _log_changes(deployment: Deployment, step: Plan) -> None:
    before = {e.id: e.phase for e in deployment.entities}
    for entity in step.entities:
        if before[entity.id] is not entity.phase:
            log.info(
                "served_entity_changed",
                endpoint_id=deployment.endpoint.id,
                endpoint=deployment.endpoint.name,
                served_entity=entity.spec.name,
                phase=entity.phase,
                message=entity.message,
            )
    for config in step.configs:
        log.info(
            "config_changed",
            endpoint_id=deployment.endpoint.id,
            endpoint=deployment.endpoint.name,
            config_version=config.version,
            phase=config.phase,
        )
    if step.forget_endpoint:
        log.info("endpoint_forgotten", endpoint_id=deployment.endpoint.id, endpoint=deployment.endpoint.name)
