"""A builder on a real Postgres, NATS and MLflow registry, with real uv; only the worker is a stand-in."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.integration.builder.peers import FakeWorker, Orderer, Registry, running_builder

from servery_builder.settings import BuilderSettings
from servery_common.messaging.bus import NatsBus, connect_bus
from servery_common.postgres import Pool, create_pool, migrate
from servery_common.settings import NatsSettings, PostgresSettings


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    pool = await create_pool(PostgresSettings(url=postgres_url, pool_size=5))
    await migrate(pool)
    yield pool
    await pool.close()


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[NatsBus]:
    async with connect_bus(NatsSettings(url=nats_url), name="test") as bus:
        yield bus


@pytest.fixture
async def worker(bus: NatsBus) -> FakeWorker:
    worker = FakeWorker()
    await worker.join(bus)
    return worker


@pytest.fixture
async def orderer(bus: NatsBus) -> Orderer:
    return await Orderer(bus).join()


@pytest.fixture
def settings(tmp_path: Path, registry: Registry) -> BuilderSettings:
    return BuilderSettings(
        artifacts_dir=tmp_path / "artifacts",
        mlflow_tracking_uri=registry.uri,
        lease=timedelta(seconds=3),
        poll_interval=timedelta(milliseconds=200),
        compile_bytecode=False,
    )


@pytest.fixture
async def builder(nats_url: str, settings: BuilderSettings, pool: Pool) -> AsyncIterator[None]:
    async with running_builder(nats_url, settings, pool):
        yield
