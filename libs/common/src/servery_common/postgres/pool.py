"""Connections to Postgres on which nothing waits for ever.

A service may start before Postgres: ``create_pool`` returns once it answers. After that every wait has a
bound, so that a dead database shows as an error within seconds and not as a hang.
"""

import asyncio
import json
import ssl
from collections.abc import Iterable
from typing import Any

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from servery_common.backoff import full_jitter
from servery_common.metering import postgres_failures
from servery_common.metric_families import gauge, single
from servery_common.settings import PostgresSettings
from servery_common.tls import tls_context

log = structlog.get_logger(__name__)

ACQUIRE_SECONDS = 2.0
COMMAND_SECONDS = 5.0

Connection = asyncpg.Connection | PoolConnectionProxy
"""What functions that take part in somebody's transaction accept."""

OUTAGE: tuple[type[Exception], ...] = (
    OSError,
    TimeoutError,
    # Rolling back on a connection that just died raises this one and hides the first error.
    asyncpg.InterfaceError,
    # So does giving a connection back that died in the middle of a query.
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
)
"""What a query raises because of the state Postgres is in, and not because of the query: worth a retry."""


class Pool(asyncpg.Pool):
    """asyncpg's pool with a bound on waiting for a free connection."""

    def acquire(self, *, timeout: float | None = None) -> Any:
        """Like asyncpg's, but waits at most two seconds unless told otherwise. Raises TimeoutError."""
        return super().acquire(timeout=ACQUIRE_SECONDS if timeout is None else timeout)

    # What every way to a connection ends in, asyncpg's own queries on the pool included.
    async def _acquire(self, timeout: float | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        try:
            return await super()._acquire(timeout)
        except OUTAGE:
            postgres_failures.inc()
            raise


class PoolMetrics(Collector):
    """How much of a pool is used."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def collect(self) -> Iterable[Metric]:
        """Implement Collector."""
        size, idle = self._pool.get_size(), self._pool.get_idle_size()
        yield gauge(
            "servery_postgres_pool_connections",
            "Connections of this process to Postgres.",
            ("state",),
            ((("used",), size - idle), (("idle",), idle)),
        )
        yield single(
            "servery_postgres_pool_max_connections",
            "Most connections this process may have (SERVERY_POSTGRES_POOL_SIZE).",
            self._pool.get_max_size(),
        )


async def create_pool(settings: PostgresSettings) -> Pool:
    """Return a pool once Postgres answers. JSON columns take and give Python values.

    With TLS, a server without it or with a certificate that is not good is waited for as one that is away: it may be in
    the middle of getting another one. Raises OSError or ssl.SSLError when the authority's file cannot be read.
    """
    delays = full_jitter(0.25, 2.0)
    while True:
        pool = _pool(settings)
        try:
            await pool
        except OUTAGE as error:
            log.warning("postgres_connect_failed", error=_what_to_do(error, settings) or repr(error))
            pool.terminate()
            await asyncio.sleep(next(delays))
        else:
            log.info("postgres_connected")
            return pool


def _pool(settings: PostgresSettings) -> Pool:
    return Pool(
        settings.url,
        min_size=1,
        max_size=settings.pool_size,
        max_queries=50_000,
        max_inactive_connection_lifetime=300.0,
        init=_init,
        setup=None,
        reset=None,
        connect=None,
        loop=None,
        connection_class=asyncpg.Connection,
        ssl=tls_context(settings.tls_ca, None, None) if settings.tls == "on" else None,
        record_class=asyncpg.Record,
        timeout=ACQUIRE_SECONDS,
        command_timeout=COMMAND_SECONDS,
        server_settings={
            "application_name": "servery",
            "statement_timeout": "5s",
            "lock_timeout": "2s",
            "idle_in_transaction_session_timeout": "10s",
        },
    )


def _what_to_do(error: Exception, settings: PostgresSettings) -> str | None:
    match error:
        case ssl.SSLCertVerificationError():
            return (
                f"The certificate Postgres shows is refused: {error.verify_message}. The authority that is trusted is "
                f"the one in {settings.tls_ca} (SERVERY_POSTGRES_TLS_CA)."
            )
        case ConnectionError() if "rejected SSL upgrade" in str(error):
            return (
                f"{error}: it runs without TLS, and this service does not talk to it in plain text. Turn TLS on there, "
                "or set SERVERY_POSTGRES_TLS=off for everybody."
            )
        case _:
            return None


async def _init(connection: asyncpg.Connection) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
