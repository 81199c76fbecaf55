"""Put the builder together. The only place that constructs."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from servery_builder.api import BuilderApi
from servery_builder.artifacts.mlflow_registry import MlflowRegistry
from servery_builder.artifacts.model_cache import ModelCache
from servery_builder.build_runner import BuildRunner
from servery_builder.consumers import BuildOrders
from servery_builder.domain.redaction import secret_values
from servery_builder.environments.bytecode import BytecodeCompiler
from servery_builder.environments.interpreters import Interpreters
from servery_builder.environments.uv import Uv
from servery_builder.environments.virtualenv import VirtualenvCache
from servery_builder.images.wiring import ContainerParts, container_parts
from servery_builder.operator_metrics import Open, present_open
from servery_builder.pipeline import Pipeline
from servery_builder.settings import BuilderSettings
from servery_builder.store import BuildStore
from servery_builder.verification import ModelEnvironments, WorkerVerifier
from servery_common.messaging.bus import connect_bus
from servery_common.messaging.port import Bus
from servery_common.postgres import Pool, create_pool, migrate, outbox
from servery_common.postgres.pool import OUTAGE, PoolMetrics
from servery_common.service import ServiceContext
from servery_common.settings import NatsSettings, PostgresSettings
from servery_common.survey import Survey, Surveys

NAME = "builder"
_DOCKERS_MARK = Path("/.dockerenv")
"""Is in every container that Docker makes."""


@dataclass(frozen=True)
class Builder:
    """The parts of a builder that run."""

    registry: MlflowRegistry
    api: BuilderApi
    orders: BuildOrders
    runner: BuildRunner
    compiler: BytecodeCompiler
    containers: ContainerParts | None
    queue: Survey[Open]
    outbox_hint: asyncio.Event


def build_app(settings: BuilderSettings, pool: Pool, bus: Bus, environment: Mapping[str, str]) -> Builder:
    """Construct the builder; ``environment`` is the process', from which uv gets what it may see."""
    environments_dir = _folder(settings.artifacts_dir / "environments")
    models_dir = _folder(settings.artifacts_dir / "models")
    store = BuildStore(pool)
    # Elsewhere localhost may well be right: a whole stack may run in one container.
    alone = settings.images == "docker" and _DOCKERS_MARK.exists()
    registry = MlflowRegistry(settings.mlflow_tracking_uri, in_container=alone)
    uv = Uv(environment)
    compiler = BytecodeCompiler()
    containers = container_parts(settings, compiler, bus) if settings.images == "docker" else None
    pipeline = Pipeline(
        registry,
        ModelCache(models_dir, registry),
        VirtualenvCache(
            environments_dir, uv, Interpreters(uv, environments_dir), wheels_only=settings.wheels_only
        ),
        ModelEnvironments(bus),
        WorkerVerifier(bus) if containers is None else containers.verifier,
        None if containers is None else containers.images,
        compiler if settings.compile_bytecode else None,
        settings.registry_patience.total_seconds(),
        settings.engine_patience.total_seconds(),
    )
    ordered, outbox_hint = asyncio.Event(), asyncio.Event()
    secrets = tuple(secret_values(environment.items()))
    return Builder(
        registry,
        BuilderApi(registry, store, settings.resolve_timeout.total_seconds()),
        BuildOrders(store, ordered),
        BuildRunner(store, pipeline, settings, secrets, ordered, outbox_hint),
        compiler,
        containers,
        Survey("builds", store.open_builds, present_open, OUTAGE),
        outbox_hint,
    )


async def main(context: ServiceContext) -> None:
    """Run the builder until it is asked to stop."""
    settings = BuilderSettings()  # pyright: ignore[reportCallIssue] - from the environment
    pool = await create_pool(PostgresSettings())  # pyright: ignore[reportCallIssue]
    try:
        await migrate(pool)
        async with connect_bus(NatsSettings(), name=NAME) as bus:
            await run(context, settings, pool, bus)
    finally:
        await pool.close()


async def run(context: ServiceContext, settings: BuilderSettings, pool: Pool, bus: Bus) -> None:
    """Run the builder on a database and a bus that are there."""
    builder = build_app(settings, pool, bus, os.environ)
    context.spawn("mlflow", builder.registry.start())
    if builder.containers is not None:
        await builder.containers.verifier.remove_leftovers()
        context.spawn("image pruning", builder.containers.pruner.run())
    if context.is_measured:
        context.metrics.register(Surveys([builder.queue]))
        context.metrics.register(PoolMetrics(pool))
        context.spawn("survey of builds", builder.queue.run())
    await builder.api.serve(bus)
    relay = context.spawn("outbox", outbox.relay(pool, bus, builder.outbox_hint, NAME))
    orders = context.spawn("orders", builder.orders.consume(bus))
    compiler = context.spawn("bytecode", builder.compiler.run())
    context.ready()
    await builder.runner.run(context.stopping)
    for task in (orders, compiler, relay):
        task.cancel()
    await asyncio.gather(orders, compiler, relay, return_exceptions=True)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()
