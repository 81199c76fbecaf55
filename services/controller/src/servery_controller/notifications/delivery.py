"""Tells people how updates of their endpoints ended, at least once.

``append`` writes a row in the transaction of the change itself, so that no crash loses one; ``run`` delivers what
is due, with growing pauses for a sink that does not take it, until a day has passed. What cannot be read
is given up at once, with the reason. Every controller delivers; a claim keeps two from sending the same.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice

import structlog

from servery_common.backoff import full_jitter
from servery_common.postgres.pool import OUTAGE, Connection, Pool
from servery_common.service import wait_any
from servery_controller.domain.happenings import Notice
from servery_controller.notifications import notification_store
from servery_controller.notifications.notification_sinks import SEND_SECONDS, DeliveryFailed, Sink
from servery_controller.notifications.notification_store import Pending, UnreadableNotice, read_notice
from servery_controller.telemetry import counters

log = structlog.get_logger()

GIVE_UP_AFTER = timedelta(days=1)
KEEP_GIVEN_UP_DAYS = 30
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 2.0, 600.0
BATCH = 20
CLAIM_SECONDS = 60.0
"""Longer than a sink may take for one notification: a batch is sent side by side."""
POLL_SECONDS = 1.0
CLEAN_SECONDS = 3600.0


class Notifications:
    """``sinks`` by name (``email``, ``webhook``); with none of them nothing is ever sent."""

    def __init__(self, pool: Pool, sinks: Mapping[str, Sink]) -> None:
        self._pool = pool
        self._sinks = sinks
        self._due = asyncio.Event()
        self._said = False

    async def append(self, conn: Connection, notices: Sequence[Notice]) -> None:
        """Add notifications to the caller's transaction; ``wake`` after the commit."""
        if not notices:
            return
        if self._sinks:
            await notification_store.append(conn, notices, self._sinks)
        elif not self._said:
            self._said = True
            log.warning(
                "notifications_not_configured",
                hint="set SERVERY_NOTIFICATIONS_SMTP_URL or SERVERY_NOTIFICATIONS_WEBHOOK_URL",
            )

    def wake(self) -> None:
        """There may be something to deliver."""
        self._due.set()

    async def run(self) -> None:
        """Deliver for ever. Outlives an unreachable Postgres."""
        if not self._sinks:
            return
        loop = asyncio.get_running_loop()
        clean_at = loop.time()
        while True:
            # Cleared before the rows are read: what is added meanwhile must not be overlooked.
            self._due.clear()
            try:
                while await self._deliver_batch() == BATCH:
                    pass
                if loop.time() >= clean_at:
                    await notification_store.forget_given_up(self._pool, days=KEEP_GIVEN_UP_DAYS)
                    clean_at = loop.time() + CLEAN_SECONDS
            except OUTAGE as error:
                log.warning("notifying_interrupted", error=repr(error))
            await wait_any(self._due, POLL_SECONDS)

    async def _deliver_batch(self) -> int:
        claimed = await notification_store.claim(
            self._pool, self._sinks, limit=BATCH, lease_seconds=CLAIM_SECONDS
        )
        async with asyncio.TaskGroup() as deliveries:
            for pending in claimed:
                deliveries.create_task(self._deliver(pending), name=f"notify {pending.id} {pending.sink}")
        return len(claimed)

    async def _deliver(self, pending: Pending) -> None:
        """Raises nothing: a fault of one notification must not keep others from leaving."""
        ids = {"notification_id": pending.id, "sink": pending.sink, "attempts": pending.attempts}
        try:
            try:
                notice = read_notice(pending.fields)
            except UnreadableNotice as error:
                await self._failed(pending, str(error), None, ids)
                return
            ids["endpoint_id"] = notice.endpoint_id
            problem = await self._send(pending, notice)
            counters.notifications.labels(pending.sink, "sent" if problem is None else "failed").inc()
            if problem is None:
                await notification_store.delivered(self._pool, pending)
                log.info("notification_sent", **ids)
            else:
                pause = pause_after(pending.attempts, datetime.now(UTC) - pending.created_at)
                await self._failed(pending, problem, pause, ids)
        except OUTAGE as error:  # its claim runs out, and it is sent once more
            log.warning("notifying_interrupted", **ids, error=repr(error))
        except Exception:
            log.exception("notification_failed", **ids)

    async def _failed(
        self, pending: Pending, problem: str, pause: float | None, ids: Mapping[str, object]
    ) -> None:
        await notification_store.failed(self._pool, pending, problem, again_in_seconds=pause)
        said = "notification_given_up" if pause is None else "notification_postponed"
        log.warning(said, **ids, reason=problem)

    async def _send(self, pending: Pending, notice: Notice) -> str | None:
        """Return why it did not arrive, or None."""
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._sinks[pending.sink].send(pending.id, notice, pending.created_at)
        except DeliveryFailed as error:
            return str(error)
        except TimeoutError:
            return f"not taken within {SEND_SECONDS:g} seconds"
        except Exception as error:
            log.exception("notification_failed", notification_id=pending.id)
            return repr(error)
        return None


def pause_after(attempts: int, age: timedelta) -> float | None:
    """Seconds until the next attempt, in full jitter over a bound that doubles; None: it is too old, give up."""
    if age >= GIVE_UP_AFTER:
        return None
    return next(islice(full_jitter(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS), attempts - 1, None))
