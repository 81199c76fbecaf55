"""Composition root of the controller: the only place that constructs.

Every controller answers the management API (they share a queue group); one of them, the leader, reconciles.
"""

import asyncio
from uuid import uuid4

import structlog

from servery_common.backoff import full_jitter
from servery_common.contracts import subjects
from servery_common.contracts.management import HttpCall
from servery_common.contracts.scaling import ScaleRequest
from servery_common.messaging.bus import connect_bus
from servery_common.messaging.port import Bus
from servery_common.postgres import outbox
from servery_common.postgres.leases import leadership
from servery_common.postgres.migrate import migrate
from servery_common.postgres.pool import Pool, create_pool
from servery_common.service import ServiceContext, wait_any
from servery_common.settings import NatsSettings, PostgresSettings
from servery_controller import store
from servery_controller.api.application import make_api
from servery_controller.api.carrier import ApiCarrier
from servery_controller.compute.process import ProcessBackend
from servery_controller.consumers import BuilderClient, BuildEvents, ScaleRequests
from servery_controller.endpoint_service import EndpointService
from servery_controller.hints import Hints
from servery_controller.identities import IdentityPublisher
from servery_controller.reconciler import Reconciler
from servery_controller.route_publisher import RoutePublisher
from servery_controller.settings import ControllerSettings

log = structlog.get_logger()


async def main(context: ServiceContext) -> None:
    """Run until asked to stop."""
    settings = ControllerSettings()  # pyright: ignore[reportCallIssue]  # admin_token comes from the environment
    pool = await create_pool(PostgresSettings())  # pyright: ignore[reportCallIssue]
    try:
        async with connect_bus(NatsSettings(), name="controller") as bus:
            await migrate(pool)
            await _serve(context, settings, pool, bus)
    finally:
        await pool.close()


async def _serve(context: ServiceContext, settings: ControllerSettings, pool: Pool, bus: Bus) -> None:
    hints = Hints()
    outbox_hint = asyncio.Event()

    def changed(endpoint_id: str) -> None:
        hints.add(endpoint_id)
        outbox_hint.set()

    backend = ProcessBackend(bus, settings.worker_settle_seconds)
    backend.on_change(hints.add)
    await backend.start()
    routes = RoutePublisher(bus)
    builder = BuilderClient(bus)
    service = EndpointService(pool, builder, changed, settings.model_timeout_seconds)
    reconciler = Reconciler(
        pool,
        bus,
        backend,
        routes,
        hints,
        outbox_hint,
        poll_seconds=settings.reconcile_poll_seconds,
        concurrency=settings.reconcile_concurrency,
    )
    identities = IdentityPublisher(
        bus,
        token=settings.admin_token.get_secret_value(),
        user_name=settings.admin_user,
        workspace_id=settings.workspace_id,
    )
    api = ApiCarrier(make_api(service, builder, backend, routes.withdraw))
    scaling = ScaleRequests(pool, hints)

    # NATS may have come back empty: publish everything again.
    republish = asyncio.Event()
    bus.on_reconnect(republish.set)

    await identities.publish()
    context.spawn("outbox relay", outbox.relay(pool, bus, outbox_hint, "controller"))
    context.spawn("build events", BuildEvents(pool, bus, hints).run())
    context.spawn("leadership", _lead(settings, pool, reconciler))
    context.spawn("republisher", _republish(republish, identities, routes, hints, pool))
    await bus.serve(
        subjects.controller_scale(), ScaleRequest, scaling.handle, queue=subjects.CONTROLLER_QUEUE
    )
    await bus.serve(subjects.controller_http(), HttpCall, api.handle, queue=subjects.CONTROLLER_QUEUE)
    context.ready()
    await context.stopping.wait()


async def _lead(settings: ControllerSettings, pool: Pool, reconciler: Reconciler) -> None:
    """Reconcile whenever this process leads; stand by otherwise. Outlives an unreachable Postgres."""
    delays = full_jitter(0.2, 5.0)
    while True:
        try:
            async with leadership(pool, "reconciler", uuid4().hex, seconds=settings.lease_seconds) as lease:
                delays = full_jitter(0.2, 5.0)
                run = asyncio.create_task(reconciler.run(lease.epoch, lease.guard), name="reconcile")
                sweep = asyncio.create_task(_sweep(settings, reconciler, lease.epoch), name="sweep")
                try:
                    await wait_any(run, sweep, lease.lost)
                finally:
                    for task in (run, sweep):
                        task.cancel()
                    results = await asyncio.gather(run, sweep, return_exceptions=True)
                for error in results:
                    if isinstance(error, Exception):
                        raise error
        except Exception:
            log.warning("leading_interrupted", exc_info=True)
            await asyncio.sleep(next(delays))


async def _sweep(settings: ControllerSettings, reconciler: Reconciler, epoch: int) -> None:
    while True:
        await asyncio.sleep(settings.sweep_seconds)
        try:
            await reconciler.sweep(epoch)
        except Exception:  # the next sweep tries again
            log.warning("sweep_failed", exc_info=True)


async def _republish(
    republish: asyncio.Event, identities: IdentityPublisher, routes: RoutePublisher, hints: Hints, pool: Pool
) -> None:
    while True:
        await republish.wait()
        republish.clear()
        try:
            await identities.publish()
            routes.forget()
            for endpoint_id in await store.all_endpoint_ids(pool):
                hints.add(endpoint_id)
        except Exception:
            log.warning("republish_failed", exc_info=True)
            asyncio.get_running_loop().call_later(1.0, republish.set)
