"""Bring the schema up to date: numbered SQL files, each applied once, all or nothing.

Every process that uses the database calls ``migrate`` at its start. An advisory lock lets one of them work
while the others wait and then find nothing to do. A file that was applied must never change: its checksum is
kept and compared. Files only expand the schema; what is no longer used is dropped a release later, so that
old processes can go on while new ones start.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

import structlog

from servery_common.postgres.advisory_locks import AdvisoryLock, hold
from servery_common.postgres.pool import Pool

log = structlog.get_logger(__name__)

_WAIT_SECONDS = 120.0
_CREATE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    name       text PRIMARY KEY,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


class MigrationError(RuntimeError):
    """The schema cannot be brought up to date."""


@dataclass(frozen=True)
class Migration:
    """One numbered file."""

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


async def migrate(pool: Pool, directory: Traversable | None = None) -> list[str]:
    """Apply what is missing and return its names. Safe to call from several processes at once.

    Raises MigrationError when a file that was applied has changed.
    """
    wanted = read_migrations(directory or resources.files("servery_common.postgres").joinpath("migrations"))
    async with pool.acquire() as connection, connection.transaction():
        # The wait for another migrating process may be long; waits for tables in use may not.
        await connection.execute(f"SET LOCAL statement_timeout = '{_WAIT_SECONDS:.0f}s'")
        await connection.execute(f"SET LOCAL lock_timeout = '{_WAIT_SECONDS:.0f}s'")
        await hold(connection, AdvisoryLock.MIGRATIONS, timeout=_WAIT_SECONDS)
        await connection.execute("SET LOCAL lock_timeout = '5s'")
        await connection.execute(_CREATE)
        rows = await connection.fetch("SELECT name, checksum FROM schema_migrations")
        todo = pending(wanted, {row["name"]: row["checksum"] for row in rows})
        for migration in todo:
            await connection.execute(migration.sql, timeout=_WAIT_SECONDS)
            await connection.execute(
                "INSERT INTO schema_migrations (name, checksum) VALUES ($1, $2)",
                migration.name,
                migration.checksum,
            )
            log.info("migration_applied", migration=migration.name)
    return [migration.name for migration in todo]


def read_migrations(directory: Traversable) -> list[Migration]:
    """Return the files of a directory in their order. Raises MigrationError for a number used twice."""
    files = sorted(
        (file for file in directory.iterdir() if file.name.endswith(".sql")),
        key=lambda file: file.name,
    )
    numbers = [file.name.partition("_")[0] for file in files]
    if twice := {number for number in numbers if numbers.count(number) > 1}:
        raise MigrationError(f"migration numbers used twice: {', '.join(sorted(twice))}")
    return [Migration(file.name, file.read_text(encoding="utf-8")) for file in files]


def pending(wanted: Sequence[Migration], applied: dict[str, str]) -> list[Migration]:
    """Return what is still to be applied. Raises MigrationError when an applied file has changed.

    An applied file that is not here comes from a newer release that was rolled back; it stays.
    """
    for migration in wanted:
        if applied.get(migration.name, migration.checksum) != migration.checksum:
            raise MigrationError(f"{migration.name} was changed after it was applied; add a new file instead")
    return [migration for migration in wanted if migration.name not in applied]
