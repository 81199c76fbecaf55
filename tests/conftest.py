"""Fixtures for all tests: a clean environment, NATS, Postgres."""

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from tests.infrastructure import NatsServer, database_url, running_nats, running_postgres
from tests.scheduling import KeepTogether

_FOREIGN = ("SERVERY_", "DATABRICKS_", "MLFLOW_", "OTEL_")
_KEPT = ("SERVERY_TEST_",)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> KeepTogether | None:
    """Let files that share what takes long to make run in one process."""
    return KeepTogether(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of whoever runs it."""
    for name in list(os.environ):
        if name.startswith(_FOREIGN) and not name.startswith(_KEPT):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def nats_server() -> Iterator[NatsServer]:
    """A NATS server of the test module's own, which it may kill and restart."""
    with running_nats() as server:
        yield server


@pytest.fixture(scope="module")
def nats_url(request: pytest.FixtureRequest) -> str:
    """A NATS server that must stay as it is."""
    return os.environ.get("SERVERY_TEST_NATS_URL") or request.getfixturevalue("nats_server").url


@pytest.fixture(scope="session")
def postgres_server_url() -> Iterator[str]:
    """One Postgres server for all tests."""
    given = os.environ.get("SERVERY_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    with running_postgres() as server:
        yield server.url


@pytest.fixture
async def postgres_url(postgres_server_url: str) -> AsyncIterator[str]:
    """An empty database of the test's own."""
    name = f"test_{uuid4().hex}"
    admin = await asyncpg.connect(postgres_server_url)
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        yield database_url(postgres_server_url, name)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()
