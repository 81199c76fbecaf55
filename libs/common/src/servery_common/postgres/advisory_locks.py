"""Every advisory lock there is: Postgres has one space of numbers for all services."""

from enum import IntEnum

from servery_common.postgres.pool import Connection


class AdvisoryLock(IntEnum):
    """What only one process does at a time."""

    MIGRATIONS = 0x5E52_7E27_0001
    SIGNING_KEYS = 0x5E52_7E27_0002
    BOOTSTRAP = 0x5E52_7E27_0003


async def hold(conn: Connection, lock: AdvisoryLock, *, timeout: float | None = None) -> None:
    """Wait for the lock and hold it until the transaction ends. ``timeout`` in seconds: raises TimeoutError."""
    await conn.execute("SELECT pg_advisory_xact_lock($1)", int(lock), timeout=timeout)


async def hold_in_workspace(conn: Connection, what: str, workspace_id: str) -> None:
    """Let nobody else count and add ``what`` in the workspace until the transaction ends."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"{what} of {workspace_id}")
