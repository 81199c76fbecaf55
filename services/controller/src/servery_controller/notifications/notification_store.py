"""The SQL of notifications: rows wait here, one per notification and sink, until they are delivered.

A claim is a lease: a controller that dies while it sends is overtaken when the lease expires, and the notification
is sent once more (at least once; its id tells repetitions).
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from servery_common.contracts.states import ConfigUpdate
from servery_common.postgres.pool import Connection, Pool
from servery_controller.domain.happenings import Notice


class UnreadableNotice(Exception):
    """A row that is not what ``append`` writes, perhaps of another release."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A notification to deliver to one sink, claimed."""

    id: str
    """The same for every sink and every repetition."""
    sink: str
    fields: Any
    """The notice as it is stored: for ``read_notice``."""
    created_at: datetime
    attempts: int
    """This one included."""
    lock_token: str


async def append(conn: Connection, notices: Iterable[Notice], sinks: Iterable[str]) -> None:
    """Add notifications to the caller's transaction."""
    to = list(sinks)
    await conn.executemany(
        "INSERT INTO notifications (id, sink, notice) VALUES ($1, $2, $3)",
        [(id_, sink, asdict(notice)) for notice in notices for id_ in [uuid4().hex] for sink in to],
    )


async def claim(pool: Pool, sinks: Iterable[str], *, limit: int, lease_seconds: float) -> list[Pending]:
    """Take notifications that are due and that nobody else is sending."""
    token = uuid4().hex
    rows = await pool.fetch(
        """UPDATE notifications
           SET lock_token = $1, lock_expires_at = now() + make_interval(secs => $2), attempts = attempts + 1
           WHERE (id, sink) IN (
               SELECT id, sink FROM notifications
               WHERE given_up_at IS NULL AND next_attempt_at <= now() AND sink = ANY($3)
                 AND (lock_expires_at IS NULL OR lock_expires_at < now())
               ORDER BY next_attempt_at LIMIT $4 FOR UPDATE SKIP LOCKED)
           RETURNING *""",
        token,
        lease_seconds,
        list(sinks),
        limit,
    )
    return [
        Pending(
            id=row["id"],
            sink=row["sink"],
            fields=row["notice"],
            created_at=row["created_at"],
            attempts=row["attempts"],
            lock_token=token,
        )
        for row in rows
    ]


async def delivered(pool: Pool, sent: Pending) -> None:
    """Forget a notification that arrived."""
    await pool.execute(
        "DELETE FROM notifications WHERE id = $1 AND sink = $2 AND lock_token = $3",
        sent.id,
        sent.sink,
        sent.lock_token,
    )


async def failed(pool: Pool, tried: Pending, error: str, *, again_in_seconds: float | None) -> None:
    """Remember why it did not arrive; it is due again later, or given up (None)."""
    await pool.execute(
        """UPDATE notifications
           SET lock_token = NULL, lock_expires_at = NULL, last_error = $4,
               next_attempt_at = now() + make_interval(secs => coalesce($5, 0)),
               given_up_at = CASE WHEN $5::double precision IS NULL THEN now() END
           WHERE id = $1 AND sink = $2 AND lock_token = $3""",
        tried.id,
        tried.sink,
        tried.lock_token,
        error,
        again_in_seconds,
    )


async def forget_given_up(pool: Pool, *, days: int) -> None:
    """Delete what was given up so long ago that nobody will look."""
    await pool.execute(
        "DELETE FROM notifications WHERE given_up_at < now() - make_interval(days => $1)", days
    )


def read_notice(fields: Any) -> Notice:
    """Return the notice of a row. Raises UnreadableNotice when it has not the shape this release writes."""
    try:
        return Notice(
            event=fields["event"],
            workspace_id=fields["workspace_id"],
            endpoint_id=fields["endpoint_id"],
            endpoint=fields["endpoint"],
            config_version=fields["config_version"],
            state=ConfigUpdate(fields["state"]),
            message=fields["message"],
            recipients=tuple(fields["recipients"]),
        )
    except (LookupError, TypeError, ValueError) as error:
        raise UnreadableNotice(f"not a notification this release can read: {error!r}") from error
