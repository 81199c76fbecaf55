"""Composition root of the controller: the only place that constructs.

Every controller answers the management API (they share a queue group); one of them, the leader, reconciles.
"""

import asyncio
import logging
import time
from datetime import timedelta
from uuid import uuid4

import httpx
import structlog

from servery_common.backoff import full_jitter
from servery_common.contracts import subjects
from servery_common.contracts.builds import ReadBuildsInUse, ReadModelEnvironment
from servery_common.contracts.management import HttpCall
from servery_common.contracts.metrics import GatewayMetrics
from servery_common.contracts.replicas import WorkerSpans
from servery_common.contracts.routes import EndpointsChanged
from servery_common.contracts.scaling import GatewayWake, ScaleRequest
from servery_common.messaging.bus import connect_bus
from servery_common.messaging.port import Bus
from servery_common.postgres import outbox
from servery_common.postgres.leases import leadership
from servery_common.postgres.migrate import migrate
from servery_common.postgres.pool import Pool, create_pool
from servery_common.service import ServiceContext, cancel_until_ended, wait_any
from servery_common.settings import NatsSettings, PostgresSettings
from servery_controller.access.wiring import start_access
from servery_controller.api.application import make_api
from servery_controller.api.carrier import ApiCarrier
from servery_controller.api.events import events_router
from servery_controller.api.metrics import metrics_router
from servery_controller.api.openapi import openapi_router
from servery_controller.api.permissions import permissions_router
from servery_controller.api.scaling import scaling_router
from servery_controller.api.secrets import secrets_router
from servery_controller.api.settings import settings_router
from servery_controller.api.suspension import suspension_router
from servery_controller.api.unsupported import unsupported_router
from servery_controller.builder_client import BuilderClient
from servery_controller.compute.docker_settings import DockerSettings
from servery_controller.compute.docker_wiring import docker_backend, replica_credentials, serve_renewals
from servery_controller.compute.placer import ComputeQuotas, Placer
from servery_controller.compute.process import ProcessBackend
from servery_controller.compute.span_relay import SpanRelay
from servery_controller.consumers import BuildEvents, MetricsReports
from servery_controller.domain.metrics_book import MetricsBook
from servery_controller.domain.planning import Limits
from servery_controller.encryption import Cipher
from servery_controller.endpoints.builds_in_use import BuildsInUseReports
from servery_controller.endpoints.endpoint_changes import ChangeSignals, EndpointChanges
from servery_controller.endpoints.endpoint_service import EndpointService
from servery_controller.endpoints.endpoint_settings import EndpointSettings
from servery_controller.endpoints.endpoint_suspension import EndpointSuspension
from servery_controller.endpoints.events import EventLog
from servery_controller.endpoints.model_environment import ModelEnvironments
from servery_controller.endpoints.permission_service import PermissionService
from servery_controller.notifications.delivery import Notifications
from servery_controller.notifications.notification_sinks import EmailSink, Sink, SmtpServer, WebhookSink
from servery_controller.reconcile.hints import Hints
from servery_controller.reconcile.reconcile_step import ReconcileStep, Term
from servery_controller.reconcile.reconciler import Reconciler
from servery_controller.reconcile.rollout_watch import RolloutWatch
from servery_controller.reconcile.route_publisher import RoutePublisher
from servery_controller.scaling.consumers import ScaleRequests, Wakes
from servery_controller.scaling.scaler_client import ScalerClient
from servery_controller.scaling.scaling_report import ScalingReports
from servery_controller.scaling.scaling_service import Scaling
from servery_controller.secrets.environment import EnvironmentResolver
from servery_controller.secrets.service import SecretService
from servery_controller.secrets.vault import Vault
from servery_controller.settings import ControllerSettings
from servery_controller.telemetry import counters
from servery_controller.telemetry.wiring import start_telemetry

log = structlog.get_logger()


async def main(context: ServiceContext) -> None:
    """Run until asked to stop."""
    settings = ControllerSettings()  # pyright: ignore[reportCallIssue]  # admin_token comes from the environment
    nats = NatsSettings()
    pool = await create_pool(PostgresSettings())  # pyright: ignore[reportCallIssue]
    try:
        async with connect_bus(nats, name="controller") as bus, httpx.AsyncClient() as web:
            await migrate(pool)
            await start_telemetry(context, pool, bus, web, nats)
            await _serve(context, settings, pool, bus, web)
    finally:
        await pool.close()


async def _serve(
    context: ServiceContext, settings: ControllerSettings, pool: Pool, bus: Bus, web: httpx.AsyncClient
) -> None:
    hints = Hints()
    outbox_hint = asyncio.Event()

    def changed(endpoint_id: str) -> None:
        hints.add(endpoint_id)
        outbox_hint.set()

    if settings.compute == "docker":
        docker_settings = DockerSettings()
        credentials = replica_credentials(docker_settings)
        backend = docker_backend(bus, settings.worker_settle_seconds, docker_settings, credentials)
        await serve_renewals(bus, credentials, backend.runs)
    else:
        backend = ProcessBackend(bus, settings.worker_settle_seconds)
    backend.on_change(hints.add)
    await backend.start()
    routes = RoutePublisher(bus, hints.add)
    builder = BuilderClient(bus)
    cipher = Cipher(settings.encryption_key.get_secret_value())
    changes = EndpointChanges(pool, bus)
    access = await start_access(context, settings, pool, bus, cipher, changes)
    vault = Vault(pool, cipher)
    environments = EnvironmentResolver(vault, access.authority)
    service = EndpointService(
        pool,
        builder,
        environments,
        changed,
        changes.published,
        settings.model_timeout_seconds,
        settings.max_endpoints_per_workspace,
    )
    notifications = Notifications(pool, _sinks(settings, web))
    book = MetricsBook()
    quotas = ComputeQuotas(settings.workspace_compute_slots, settings.region_compute_slots)
    step = ReconcileStep(
        pool,
        builder,
        backend,
        environments,
        routes,
        hints,
        outbox_hint,
        notifications,
        RolloutWatch(book.answered, time.monotonic),
        Limits(
            patience=timedelta(seconds=settings.deployment_timeout_seconds),
            longest_stream=timedelta(seconds=settings.max_stream_seconds),
            scale_to_zero=timedelta(seconds=settings.scale_to_zero_seconds),
        ),
        Placer(pool, backend, quotas, time.monotonic),
    )
    reconciler = Reconciler(
        pool,
        backend,
        routes,
        hints,
        step,
        poll_seconds=settings.reconcile_poll_seconds,
        concurrency=settings.reconcile_concurrency,
    )
    api = ApiCarrier(
        make_api(
            service,
            builder,
            backend,
            routes.withdraw,
            access.authority.confirm,
            (
                *access.routers,
                secrets_router(SecretService(pool, vault)),
                permissions_router(PermissionService(pool, changes)),
                metrics_router(service, backend, book, time.monotonic),
                openapi_router(service, builder, settings.public_url),
                settings_router(EndpointSettings(pool, changes)),
                suspension_router(EndpointSuspension(pool, changed), backend),
                events_router(EventLog(pool)),
                scaling_router(
                    ScalingReports(
                        pool, service, backend, ScalerClient(bus), quotas, settings.scale_to_zero_seconds
                    )
                ),
                unsupported_router(),
            ),
        )
    )
    scaling = Scaling(pool, bus)

    await bus.on_signal(
        subjects.ALL_GATEWAY_METRICS, GatewayMetrics, MetricsReports(book, time.monotonic).heard
    )
    await bus.on_signal(
        subjects.ALL_WORKER_SPANS,
        WorkerSpans,
        SpanRelay.of_environment(web).heard,
        sender=lambda spans: spans.worker_id,
        queue=subjects.CONTROLLER_QUEUE,
    )
    await bus.on_signal(subjects.ALL_GATEWAY_WAKES, GatewayWake, Wakes(scaling, time.monotonic).heard)
    await bus.on_signal(subjects.endpoints_changed(), EndpointsChanged, ChangeSignals(hints).heard)
    context.spawn("outbox relay", outbox.relay(pool, bus, outbox_hint, "controller"))
    context.spawn("build events", BuildEvents(pool, bus, hints).run())
    context.spawn("notifications", notifications.run())
    context.spawn("leadership", _lead(settings, pool, reconciler))
    context.spawn("routes", routes.follow())
    context.spawn("workers", backend.run())
    await bus.serve(
        subjects.controller_scale(),
        ScaleRequest,
        ScaleRequests(scaling).handle,
        queue=subjects.CONTROLLER_QUEUE,
    )
    await bus.serve(
        subjects.controller_model_environment(),
        ReadModelEnvironment,
        ModelEnvironments(pool, environments).handle,
        queue=subjects.CONTROLLER_QUEUE,
    )
    await bus.serve(
        subjects.controller_builds_in_use(),
        ReadBuildsInUse,
        BuildsInUseReports(pool).handle,
        queue=subjects.CONTROLLER_QUEUE,
    )
    await bus.serve(subjects.controller_http(), HttpCall, api.handle, queue=subjects.CONTROLLER_QUEUE)
    context.ready()
    await context.stopping.wait()


def _sinks(settings: ControllerSettings, web: httpx.AsyncClient) -> dict[str, Sink]:
    sinks: dict[str, Sink] = {}
    if settings.notifications_smtp_url is not None:
        sinks["email"] = EmailSink(SmtpServer.parse(settings.notifications_smtp_url.get_secret_value()))
    if settings.notifications_webhook_url is not None:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log the address, which may hold a key
        sinks["webhook"] = WebhookSink(settings.notifications_webhook_url.get_secret_value(), web)
    return sinks


async def _lead(settings: ControllerSettings, pool: Pool, reconciler: Reconciler) -> None:
    """Reconcile whenever this process leads; stand by otherwise. Outlives an unreachable Postgres."""
    delays = full_jitter(0.2, 5.0)
    while True:
        try:
            async with leadership(pool, "reconciler", uuid4().hex, seconds=settings.lease_seconds) as lease:
                delays = full_jitter(0.2, 5.0)
                term = Term(lease.epoch, lease.guard)
                counters.leader.set(1)
                counters.leader_epoch.set(lease.epoch)
                run = asyncio.create_task(reconciler.run(term), name="reconcile")
                sweep = asyncio.create_task(_sweep(settings, reconciler, term), name="sweep")
                try:
                    await wait_any(run, sweep, lease.lost)
                finally:
                    counters.leader.set(0)
                    await cancel_until_ended(run, sweep)
                    results = await asyncio.gather(run, sweep, return_exceptions=True)
                for error in results:
                    if isinstance(error, Exception):
                        raise error
        except Exception:
            log.warning("leading_interrupted", exc_info=True)
            await asyncio.sleep(next(delays))


async def _sweep(settings: ControllerSettings, reconciler: Reconciler, term: Term) -> None:
    while True:
        await asyncio.sleep(settings.sweep_seconds)
        try:
            await reconciler.sweep(term)
        except Exception:  # the next sweep tries again
            log.warning("sweep_failed", exc_info=True)
