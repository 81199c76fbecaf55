"""Publish exactly what was committed: messages are rows first, in the transaction of the change they tell of.

``relay`` publishes them in the order of their ids and deletes each after JetStream stored it. A crash in
between publishes it twice; JetStream drops the repetition by its id. Rows are selected by being there,
never by "id greater than the last": ids are given before commit, and a slow transaction's row would be
skipped.
"""

import asyncio
from typing import Protocol
from uuid import uuid4

import structlog

from servery_common.backoff import full_jitter
from servery_common.contracts.catalogue import only_producer
from servery_common.contracts.message import Message
from servery_common.errors import BadRequest, ServeryError
from servery_common.messaging.envelope import Event, make_event
from servery_common.postgres.pool import OUTAGE, Connection, Pool
from servery_common.service import wait_any

log = structlog.get_logger(__name__)

MAX_BODY_BYTES = 960 * 1024
"""NATS' default limit less some room for headers. A larger row could never leave and would block the rest."""
POLL_SECONDS = 1.0
BATCH = 200


class Publisher(Protocol):
    """The part of the bus that the relay needs."""

    async def publish_event(self, event: Event) -> None: ...


async def append(
    connection: Connection,
    subject: str,
    message: Message,
    event_id: str | None = None,
    *,
    owner: str | None = None,
) -> str:
    """Add a message to the caller's transaction; returns its event id. Set the relay's hint after the commit.

    ``owner`` is the service whose relay publishes it: by default the one that the catalogue names as the
    message's producer. An ``event_id`` that is already waiting changes nothing.
    """
    event = make_event(subject, message, event_id or uuid4().hex)
    if len(event.body) > MAX_BODY_BYTES:
        raise BadRequest(f"A {event.type} of {len(event.body)} bytes is too large to be sent.")
    await connection.execute(
        """
        INSERT INTO outbox (owner, event_id, type, subject, body, trace)
        VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (owner, event_id) DO NOTHING
        """,
        owner or only_producer(type(message)),
        event.id,
        event.type,
        event.subject,
        event.body,
        dict(event.trace),
    )
    return event.id


async def relay(pool: Pool, bus: Publisher, hint: asyncio.Event, owner: str) -> None:
    """Publish the owner's messages for ever: when ``hint`` is set, and every second in case nobody set it."""
    delays = full_jitter(0.1, POLL_SECONDS)
    failing = False
    while True:
        # Cleared before the rows are read: a hint set meanwhile must not be lost.
        hint.clear()
        try:
            while await relay_once(pool, bus, owner) == BATCH:
                pass
        except (ServeryError, *OUTAGE) as error:
            if not failing:
                log.warning("outbox_relay_interrupted", owner=owner, error=repr(error))
            failing = True
            await asyncio.sleep(next(delays))
            continue
        if failing:
            log.info("outbox_relay_resumed", owner=owner)
            failing, delays = False, full_jitter(0.1, POLL_SECONDS)
        await wait_any(hint, POLL_SECONDS)


async def relay_once(pool: Pool, bus: Publisher, owner: str) -> int:
    """Publish the oldest rows and return how many. No transaction is open while the network is waited for."""
    rows = await pool.fetch(
        """
        SELECT id, event_id, type, subject, body, trace, created_at
        FROM outbox WHERE owner = $1 ORDER BY id LIMIT $2
        """,
        owner,
        BATCH,
    )
    for row in rows:
        await bus.publish_event(
            Event(
                id=row["event_id"],
                type=row["type"],
                subject=row["subject"],
                body=row["body"],
                trace=row["trace"],
                time=row["created_at"],
            )
        )
        await pool.execute("DELETE FROM outbox WHERE id = $1", row["id"])
    return len(rows)
