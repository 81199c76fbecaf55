"""Buses and pools for the tests of the shared library."""

from collections.abc import AsyncIterator

import pytest
from tests.infrastructure import NatsServer

from servery_common.messaging import bus as bus_module
from servery_common.messaging.bus import NatsBus, connect_bus
from servery_common.postgres import Pool, create_pool, migrate
from servery_common.settings import NatsSettings, PostgresSettings


@pytest.fixture(autouse=True)
def short_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers that hang on purpose are not waited for at the end of a test."""
    monkeypatch.setattr(bus_module, "STOP_SECONDS", 0.1)


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[NatsBus]:
    async with connect_bus(NatsSettings(url=nats_server.url), name="test") as connected:
        yield connected


@pytest.fixture
async def other_bus(nats_server: NatsServer) -> AsyncIterator[NatsBus]:
    """Another process' bus."""
    async with connect_bus(NatsSettings(url=nats_server.url), name="other") as connected:
        yield connected


@pytest.fixture
async def empty_pool(postgres_url: str) -> AsyncIterator[Pool]:
    pool = await create_pool(PostgresSettings(url=postgres_url))
    yield pool
    await pool.close()


@pytest.fixture
async def pool(empty_pool: Pool) -> Pool:
    await migrate(empty_pool)
    return empty_pool
