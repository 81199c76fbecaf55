"""Postgres as it tells of itself (``pg_stat_…``). Needs no rights beyond those the controller has."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, Metric

from servery_common.metric_families import gauge, single
from servery_common.postgres.pool import Pool

_DATABASE = """
    SELECT xact_commit, xact_rollback, blks_hit, blks_read, deadlocks, temp_bytes,
           pg_database_size(current_database()) AS size,
           current_setting('max_connections')::int AS max_connections
    FROM pg_stat_database WHERE datname = current_database()
"""
_CONNECTIONS = """
    SELECT coalesce(state, 'other') AS state, count(*) AS connections,
           coalesce(max(extract(epoch FROM now() - xact_start)), 0)::float8 AS oldest
    FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() GROUP BY 1
"""
STATES = ("active", "idle", "idle in transaction")


@dataclass(frozen=True, slots=True)
class Database:
    """Postgres at one moment."""

    totals: Mapping[str, int]
    connections: Mapping[str, int]
    oldest_transaction: float


async def read_database(pool: Pool) -> Database:
    """Ask. Raises what the database raises."""
    async with pool.acquire() as conn:
        totals = await conn.fetchrow(_DATABASE)
        connections = await conn.fetch(_CONNECTIONS)
    return Database(
        totals=dict(totals or {}),
        connections={row["state"]: row["connections"] for row in connections},
        oldest_transaction=max((row["oldest"] for row in connections), default=0.0),
    )


def present_database(database: Database) -> Iterator[Metric]:
    """Return it as Prometheus has it."""
    totals = database.totals
    states = {**dict.fromkeys(STATES, 0), **database.connections}
    yield gauge(
        "servery_postgres_connections",
        "Connections to the database, of all services together, by state.",
        ("state",),
        (((state,), count) for state, count in states.items()),
    )
    yield single("servery_postgres_max_connections", "Most the server takes.", totals["max_connections"])
    yield single("servery_postgres_database_bytes", "Size of the database on disk.", totals["size"])
    yield single(
        "servery_postgres_oldest_transaction_seconds",
        "Age of the longest transaction that is open.",
        database.oldest_transaction,
    )
    transactions = CounterMetricFamily(
        "servery_postgres_transactions", "Transactions, by how they ended.", labels=("result",)
    )
    transactions.add_metric(("commit",), totals["xact_commit"])
    transactions.add_metric(("rollback",), totals["xact_rollback"])
    yield transactions
    blocks = CounterMetricFamily(
        "servery_postgres_blocks", "Pages read, by where they were.", labels=("from",)
    )
    blocks.add_metric(("cache",), totals["blks_hit"])
    blocks.add_metric(("disk",), totals["blks_read"])
    yield blocks
    yield CounterMetricFamily("servery_postgres_deadlocks", "Deadlocks.", value=totals["deadlocks"])
    yield CounterMetricFamily(
        "servery_postgres_temp_bytes", "Written to temporary files by queries.", value=totals["temp_bytes"]
    )
