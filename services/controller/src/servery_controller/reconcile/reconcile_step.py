"""One reconcile step: load, observe, plan, act, apply. The thin shell around ``domain.planning.plan``.

Effects are idempotent and come before the rows that say they happened, so a crash anywhere is repaired by
the next step. Rows are written only by who still leads, still holds the endpoint's claim, and has seen the
last change a person made; a route is put only over the one that was there when the step began.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import uuid4

import structlog
from opentelemetry import trace

from servery_common.contracts import subjects
from servery_common.contracts.builds import BuildStatus
from servery_common.contracts.replicas import ReplicaLaunch
from servery_common.errors import ResourceExhausted, ServeryError
from servery_common.postgres import outbox
from servery_common.postgres.leases import StaleLeader
from servery_common.postgres.pool import OUTAGE, Connection, Pool
from servery_controller.builder_client import BuilderClient
from servery_controller.compute.backend import ArtifactsGone, ComputeBackend
from servery_controller.compute.placer import Placer
from servery_controller.domain.endpoint import (
    ConfigPhase,
    Deployment,
    EntityPhase,
    Observation,
    Replica,
    ServedEntity,
)
from servery_controller.domain.happenings import events_of, notices_of
from servery_controller.domain.planning import (
    BUSY,
    Limits,
    Plan,
    plan,
    with_environment_problem,
    with_placement_problem,
    with_rebuild,
)
from servery_controller.domain.rebuilding import is_rebuilt
from servery_controller.domain.sizes import SLOTS_PER_REPLICA
from servery_controller.endpoints import config_store, events, replica_store, store
from servery_controller.endpoints.config_versions import build_order
from servery_controller.notifications.delivery import Notifications
from servery_controller.reconcile.hints import Hints
from servery_controller.reconcile.rollout_watch import RolloutWatch
from servery_controller.reconcile.route_publisher import RoutePublisher
from servery_controller.secrets.environment import EnvironmentResolver
from servery_controller.telemetry.counters import reconcile_duration

log = structlog.get_logger()
tracer = trace.get_tracer(__name__)

CLAIM_SECONDS = 60.0
"""A claim outlives the slowest step (orders of one kind go out side by side, each answered or given up within
seconds); the claims of a leader that died are dropped by the next one, this is for steps that got lost."""
DRAIN_MARGIN = timedelta(seconds=5)
"""A draining replica gets the longest answer it may have accepted and this much more. Without work it ends at once."""


@dataclass(frozen=True, slots=True)
class Term:
    """This process's time as leader. ``check`` raises StaleLeader inside a transaction when it is over."""

    epoch: int
    check: Callable[[Connection], Awaitable[None]]


@dataclass(slots=True)
class _Placements:
    """What became of looking for places, for the rows."""

    found: dict[str, str | None] = field(default_factory=dict[str, str | None])
    """Nodes by replica id; None: there was none, or it refused."""
    new: list[tuple[Replica, ServedEntity]] = field(default_factory=list[tuple[Replica, ServedEntity]])
    """Replicas that are decided on with this step."""


class ReconcileStep:
    """Runs steps. ``outbox_hint`` wakes the relay after a write."""

    def __init__(
        self,
        pool: Pool,
        builder: BuilderClient,
        backend: ComputeBackend,
        environments: EnvironmentResolver,
        routes: RoutePublisher,
        hints: Hints,
        outbox_hint: asyncio.Event,
        notifications: Notifications,
        rollouts: RolloutWatch,
        limits: Limits,
        placer: Placer,
    ) -> None:
        self._pool = pool
        self._builder = builder
        self._backend = backend
        self._environments = environments
        self._routes = routes
        self._hints = hints
        self._outbox_hint = outbox_hint
        self._notifications = notifications
        self._rollouts = rollouts
        self._limits = limits
        self._placer = placer

    async def run(self, endpoint_id: str, lock_token: str, term: Term) -> None:
        """Step one endpoint that was claimed. Never raises: what failed is logged and tried again."""
        generation: int | None = None
        look_again = BUSY
        began, result = time.monotonic(), "done"
        with tracer.start_as_current_span("reconcile", attributes={"servery.endpoint_id": endpoint_id}):
            try:
                over = self._routes.revision(endpoint_id)  # before the load: see RoutePublisher
                deployment = (await store.load_deployments(self._pool, [endpoint_id])).get(endpoint_id)
                if deployment is None:
                    return
                seen = await self._observe(deployment)
                step = plan(deployment, seen, datetime.now(UTC), self._limits)
                step, placements = await self._act(deployment, step, term, lock_token, over)
                if await self._apply(deployment, step, placements, term, lock_token):
                    look_again = step.look_again
                    # Observed means that gateways were told: who changed something waits for it.
                    if step.route is not None or step.withdraw_route:
                        generation = deployment.endpoint.generation
            except (ServeryError, StaleLeader, *OUTAGE) as error:
                result = "postponed"
                log.warning("reconcile_postponed", endpoint_id=endpoint_id, reason=str(error) or repr(error))
            except Exception:
                result = "failed"
                log.exception("reconcile_failed", endpoint_id=endpoint_id)
            finally:
                reconcile_duration.labels(result).observe(time.monotonic() - began)
                await self._release(endpoint_id, lock_token, generation, look_again)

    async def _observe(self, deployment: Deployment) -> Observation:
        seen = self._backend.observe()
        build_ids = [
            e.build_id for e in deployment.entities if e.phase is EntityPhase.BUILDING or is_rebuilt(e)
        ]
        statuses = await asyncio.gather(*[self._describe(build_id) for build_id in build_ids])
        builds = {status.build_id: status for status in statuses if status is not None}
        health = self._rollouts.health(deployment)
        counted = self._rollouts.counted_seconds(deployment.endpoint.id)
        return replace(seen, builds=builds, health=health, counted_seconds=counted)

    async def _describe(self, build_id: str) -> BuildStatus | None:
        try:
            return await self._builder.describe(build_id)
        except ServeryError as error:
            # A builder in trouble must not keep the replicas of the active config from being looked after.
            log.info("build_not_described", build_id=build_id, reason=error.message)
            return None

    async def _act(
        self, deployment: Deployment, step: Plan, term: Term, lock_token: str, over: int
    ) -> tuple[Plan, _Placements]:
        """Carry out the effects. Returns the step with what they showed, for the rows."""
        for entity in step.rebuild:
            problem = "The model's image is gone."
            step = with_rebuild(step, entity, problem, uuid4().hex, datetime.now(UTC))
        placements = _Placements()
        placements.new = [
            # A place is looked for at once and not by the next step: whoever woke the entity waits for it.
            (Replica(uuid4().hex, entity.id, None, stopping=False, created_at=datetime.now(UTC)), entity)
            for entity, count in step.new_replicas
            for _ in range(count)
        ]
        if step.place or placements.new:
            step = await self._place(deployment, step, placements, term)
        problems = await asyncio.gather(
            *[
                self._ensure(deployment, replica, entity, step, term, placements)
                for replica, entity in step.ensure
            ]
        )
        for told in problems:
            if told is not None:
                step = told(step)
        if step.route is not None and not self._routes.shows(step.route):
            await self._check(deployment, term, lock_token)
            await self._routes.publish(step.route, over=over)
            log.info(
                "route_published",
                endpoint_id=deployment.endpoint.id,
                status=step.route.status,
                replicas=sum(len(e.replicas) for e in step.route.served_entities),
            )
        if step.withdraw_route:
            await self._routes.withdraw(deployment.endpoint.id)
        await asyncio.gather(*[self._stop(deployment, replica, term) for replica in step.stop])
        return step, placements

    async def _place(self, deployment: Deployment, step: Plan, placements: _Placements, term: Term) -> Plan:
        """Find nodes. Where one replica of an entity finds none, the others of it would not either."""
        await self._placer.look(deployment.endpoint.id)
        full: set[str] = set()
        for replica, entity in (*step.place, *placements.new):
            if entity.id in full:
                continue
            try:
                placements.found[replica.id] = self._placer.place(deployment, replica, entity)
            except ServeryError as error:
                full.add(entity.id)
                log.warning("replica_not_placed", replica_id=replica.id, reason=error.message)
                step = with_placement_problem(
                    step, entity, error.message, running=_running(deployment, entity, step)
                )
        for endpoint_id in await self._placer.give_back(term.check):
            self._hints.add(endpoint_id)
        return step

    async def _ensure(
        self,
        deployment: Deployment,
        replica: Replica,
        entity: ServedEntity,
        step: Plan,
        term: Term,
        placements: _Placements,
    ) -> Callable[[Plan], Plan] | None:
        """Order one replica on its node. Returns how the step tells why it was not taken.

        That keeps nothing else from being done: replicas that run keep running.
        """
        if entity.artifacts is None or replica.node is None:
            raise AssertionError(f"replica {replica.id} is ordered before it was built and placed")
        try:
            variables = await self._environments.resolve(deployment.endpoint.workspace_id, entity)
        except ServeryError as error:
            log.warning("environment_not_resolved", replica_id=replica.id, reason=error.message)
            return partial(with_environment_problem, entity=entity, problem=error.message)
        launch = ReplicaLaunch(
            replica_id=replica.id,
            workspace_id=deployment.endpoint.workspace_id,
            workload_type=entity.spec.workload_type,
            endpoint_id=deployment.endpoint.id,
            endpoint_name=deployment.endpoint.name,
            served_entity_id=entity.id,
            served_entity_name=entity.spec.name,
            artifacts=entity.artifacts,
            environment_vars=variables,
            slots=SLOTS_PER_REPLICA,
            timeout_seconds=deployment.endpoint.timeout_seconds,
            epoch=term.epoch,
        )
        try:
            await self._backend.ensure(replica.node, launch)
        except ArtifactsGone as error:
            log.warning("artifacts_gone", replica_id=replica.id, reason=error.message)
            return partial(
                with_rebuild,
                entity=entity,
                problem=error.message,
                build_id=uuid4().hex,
                now=datetime.now(UTC),
            )
        except ServeryError as error:
            log.warning("replica_not_ensured", replica_id=replica.id, node=replica.node, reason=error.message)
            if isinstance(error, ResourceExhausted):
                placements.found[replica.id] = None  # it certainly is not there: another node may take it
            return partial(
                with_placement_problem,
                entity=entity,
                problem=error.message,
                running=_running(deployment, entity, step),
            )
        return None

    async def _stop(self, deployment: Deployment, replica: Replica, term: Term) -> None:
        grace = self._limits.longest_answer(deployment.endpoint) + DRAIN_MARGIN
        try:
            await self._backend.stop(replica.id, grace, term.epoch)
        except ServeryError as error:
            # Tried again by the next step; it keeps no row from being written.
            log.warning("replica_not_stopped", replica_id=replica.id, reason=error.message)

    async def _check(self, deployment: Deployment, term: Term, lock_token: str) -> None:
        """Raise StaleLeader when this step was overtaken, before an effect that others would see."""
        async with self._pool.acquire() as conn, conn.transaction():
            await term.check(conn)
            if not await self._owns(conn, deployment, lock_token):
                raise StaleLeader(f"the step of endpoint {deployment.endpoint.id} was overtaken")

    async def _owns(self, conn: Connection, deployment: Deployment, lock_token: str) -> bool:
        endpoint = deployment.endpoint
        return await store.still_owned(conn, endpoint.id, lock_token, endpoint.generation)

    async def _apply(
        self, deployment: Deployment, step: Plan, placements: _Placements, term: Term, lock_token: str
    ) -> bool:
        """Write what the step decided, in one transaction. False when the step was overtaken."""
        endpoint_id = deployment.endpoint.id
        async with self._pool.acquire() as conn, conn.transaction():
            await term.check(conn)
            if not await self._owns(conn, deployment, lock_token):
                log.info("stale_step_dropped", endpoint_id=endpoint_id)
                self._hints.add(endpoint_id)
                return False
            for entity in step.entities:
                await config_store.update_entity(conn, entity)
            # The config that loses the traffic first: there may be only one ACTIVE at any moment.
            for config in sorted(step.configs, key=lambda c: c.phase is ConfigPhase.ACTIVE):
                await config_store.update_config_phase(
                    conn, endpoint_id, config.version, config.phase, config.rollout
                )
            for entity in step.order_builds:
                await config_store.build_requested_again(conn, entity.id, datetime.now(UTC))
                await outbox.append(
                    conn, subjects.build_job(entity.build_id), build_order(endpoint_id, entity)
                )
            for source_id, heir_id in step.adopt:
                await replica_store.adopt_replicas(conn, source_id, heir_id)
            for replica, _ in placements.new:
                await replica_store.insert_replica(conn, replica)
            for replica_id, node in placements.found.items():
                await replica_store.place_replica(conn, replica_id, node)
            await replica_store.mark_stopping(conn, step.stopping)
            await replica_store.delete_replicas(conn, step.gone)
            begun = await events.begun(conn, endpoint_id, [config.version for config in step.configs])
            await events.record(conn, endpoint_id, events_of(deployment, step, begun))
            await self._notifications.append(conn, notices_of(deployment, step))
            if step.forget_endpoint:
                await store.delete_endpoint(conn, endpoint_id)
        _log_changes(deployment, step)
        if step.order_builds:
            self._outbox_hint.set()
        if step.configs:
            self._notifications.wake()
        if step.new_replicas or step.configs or step.entities or step.stopping or placements.found:
            self._hints.add(endpoint_id)  # the next step has something to do at once
        if step.gone:
            for waiting_id in self._placer.waiting():
                self._hints.add(waiting_id)
        return True

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


def _running(deployment: Deployment, entity: ServedEntity, step: Plan) -> int:
    """How many replicas of an entity are on their node, as far as the step knows."""
    missing = {replica.id for replica, _ in step.ensure}
    rows = deployment.replicas_of(entity.id)
    return sum(r.node is not None and not r.stopping and r.id not in missing for r in rows)


def _log_changes(deployment: Deployment, step: Plan) -> None:
    before = {e.id: e.phase for e in deployment.entities}
    ids = {"endpoint_id": deployment.endpoint.id, "endpoint": deployment.endpoint.name}
    for entity in step.entities:
        if before[entity.id] is not entity.phase:
            log.info(
                "served_entity_changed",
                **ids,
                served_entity=entity.spec.name,
                phase=entity.phase,
                message=entity.message,
            )
    for config in step.configs:
        log.info("config_changed", **ids, config_version=config.version, phase=config.phase)
    if step.forget_endpoint:
        log.info("endpoint_forgotten", **ids)
