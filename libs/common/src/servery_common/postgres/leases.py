"""Who may act: one leader per name.

A lease alone does not stop a leader that was paused: it may wake up after another took over and go on
writing. Therefore each takeover increments an *epoch*; ``LeaderLease.guard`` checks it inside the very
transaction that writes, and commands to workers carry it. Only the database's clock is compared with the
database's times.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from datetime import timedelta

import structlog

from servery_common.metering import count_stale_write
from servery_common.postgres.pool import OUTAGE, Connection, Pool

log = structlog.get_logger(__name__)

LEASE_SECONDS = 10.0


class StaleLeader(Exception):
    """Somebody else leads by now: nothing this process decides may be written any more."""


class LeaderLease:
    """A lease on leading; usually made by ``leadership``."""

    def __init__(self, pool: Pool, name: str, holder: str, seconds: float = LEASE_SECONDS) -> None:
        self.name = name
        self.holder = holder
        self.epoch = 0
        """Grows by one per takeover."""
        self.lost = asyncio.Event()
        """Set as soon as the lease cannot be relied on any more."""
        self._pool = pool
        self._seconds = seconds
        self._valid_until = 0.0

    async def acquire(self) -> int:
        """Wait until this process leads; returns the epoch."""
        while True:
            with contextlib.suppress(*OUTAGE):
                if await self.try_acquire():
                    self.lost.clear()
                    log.info("leadership_taken", lease=self.name, epoch=self.epoch)
                    return self.epoch
            await asyncio.sleep(self._seconds / 5)

    async def try_acquire(self) -> bool:
        """Take the lease if it is free or expired. Raises what the database raises."""
        asked = time.monotonic()
        epoch = await self._pool.fetchval(
            """
            INSERT INTO leases AS lease (name, holder, epoch, expires_at)
            VALUES ($1, $2, 1, now() + $3)
            ON CONFLICT (name) DO UPDATE
            SET holder = $2, epoch = lease.epoch + 1, expires_at = now() + $3
            WHERE lease.expires_at < now()
            RETURNING epoch
            """,
            self.name,
            self.holder,
            timedelta(seconds=self._seconds),
        )
        if epoch is None:
            return False
        self.epoch = epoch
        self._valid_until = asked + self._seconds
        return True

    async def renew(self) -> None:
        """Renew until the lease is lost, then set ``lost`` and return."""
        try:
            held = True
            while held:
                await asyncio.sleep(self._seconds / 3)
                held = await self._renew_once()
        finally:
            self.lost.set()
        log.warning("leadership_lost", lease=self.name, epoch=self.epoch)

    async def release(self) -> None:
        """Let another process lead at once."""
        self.lost.set()
        with contextlib.suppress(*OUTAGE):
            await self._pool.execute(
                "UPDATE leases SET expires_at = '-infinity' WHERE name = $1 AND epoch = $2",
                self.name,
                self.epoch,
            )

    async def guard(self, connection: Connection) -> None:
        """Hold the lease's epoch until the caller's transaction ends. Raises StaleLeader.

        Either a takeover waits for the transaction, or the transaction finds the new epoch.
        """
        current = await connection.fetchval("SELECT epoch FROM leases WHERE name = $1 FOR SHARE", self.name)
        if current != self.epoch:
            self.lost.set()
            count_stale_write("lease")
            raise StaleLeader(f"epoch {self.epoch} of {self.name} is over; it is {current} now")

    async def _renew_once(self) -> bool:
        """Renew, trying until the lease would have expired; False when it is lost."""
        while (asked := time.monotonic()) < self._valid_until:
            try:
                async with asyncio.timeout(self._valid_until - asked):
                    epoch = await self._pool.fetchval(
                        """
                        UPDATE leases SET expires_at = now() + $3
                        WHERE name = $1 AND epoch = $2 AND expires_at > '-infinity'
                        RETURNING epoch
                        """,
                        self.name,
                        self.epoch,
                        timedelta(seconds=self._seconds),
                    )
            except OUTAGE:
                await asyncio.sleep(self._seconds / 50)
                continue
            self._valid_until = asked + self._seconds
            return epoch is not None
        return False


@contextlib.asynccontextmanager
async def leadership(
    pool: Pool, name: str, holder: str, *, seconds: float = LEASE_SECONDS
) -> AsyncGenerator[LeaderLease]:
    """Wait until ``holder`` leads, renew meanwhile, release at the end. Watch ``lease.lost`` inside.

    ``seconds`` is how long nobody leads after a leader vanished.
    """
    lease = LeaderLease(pool, name, holder, seconds)
    await lease.acquire()
    renewing = asyncio.create_task(lease.renew(), name=f"renew-{name}")
    try:
        yield lease
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        await lease.release()
