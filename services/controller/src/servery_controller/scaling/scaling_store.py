"""The SQL of replica counts and of the decisions about them.

Whoever changes a count locks the endpoint's row before the served entity's, as a reconcile step does: in the other
order the two would wait for each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from asyncpg import Record

from servery_common.postgres.pool import Connection, Pool
from servery_controller.domain.scaling import DecidedBy, ScalingDecision, event_of
from servery_controller.endpoints import events

KEPT_PER_ENDPOINT = 1000

_CAN_BE_SCALED = "phase NOT IN ('FAILED', 'ABORTED')"


@dataclass(frozen=True, slots=True)
class Counts:
    """A served entity's replicas: how many are aimed at, and the fewest and most it may have."""

    name: str
    config_version: int
    desired: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class KeptDecision:
    """A decision and when it was made."""

    decision: ScalingDecision
    decided_at: datetime


async def lock_counts(conn: Connection, endpoint_id: str, served_entity_id: str) -> Counts | None:
    """Return the counts of a served entity and keep others from changing them; None when it cannot be scaled."""
    held = await conn.fetchval(
        "SELECT true FROM endpoints WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE", endpoint_id
    )
    if not held:
        return None
    row = await conn.fetchrow(
        f"""SELECT name, config_version, desired_replicas AS desired, min_replicas AS low, max_replicas AS high
            FROM served_entities WHERE id = $2 AND endpoint_id = $1 AND {_CAN_BE_SCALED}""",
        endpoint_id,
        served_entity_id,
    )
    return Counts(**row) if row else None


async def set_desired(conn: Connection, served_entity_id: str, desired: int) -> None:
    """Write the count and have the endpoint looked at. The caller has locked both."""
    await conn.execute(
        """WITH scaled AS (UPDATE served_entities SET desired_replicas = $2 WHERE id = $1 RETURNING endpoint_id)
           UPDATE endpoints SET due_at = now() FROM scaled WHERE endpoints.id = scaled.endpoint_id""",
        served_entity_id,
        desired,
    )


async def wake(conn: Connection, endpoint_id: str, served_entity_id: str) -> Counts | None:
    """Make the count of an entity at zero 1; return what it was, or None when it is not at zero.

    Locks nothing unless the entity is at zero. Of several at the same time one writes.
    """
    row = await conn.fetchrow(
        f"""WITH held AS MATERIALIZED (
                SELECT id FROM endpoints
                WHERE id = $1 AND deleted_at IS NULL AND EXISTS (
                    SELECT 1 FROM served_entities
                    WHERE id = $2 AND endpoint_id = $1 AND desired_replicas = 0 AND {_CAN_BE_SCALED})
                FOR NO KEY UPDATE),
            woken AS (
                UPDATE served_entities e SET desired_replicas = 1 FROM held
                WHERE e.id = $2 AND e.endpoint_id = held.id AND e.desired_replicas = 0 AND e.{_CAN_BE_SCALED}
                RETURNING e.*),
            due AS (UPDATE endpoints SET due_at = now() FROM woken WHERE endpoints.id = woken.endpoint_id)
            SELECT name, config_version, 0 AS desired, min_replicas AS low, max_replicas AS high FROM woken""",
        endpoint_id,
        served_entity_id,
    )
    return Counts(**row) if row else None


async def keep(conn: Connection, endpoint_id: str, decision: ScalingDecision) -> None:
    """Add a decision and its event to the caller's transaction; decisions beyond the newest are dropped."""
    await conn.execute(
        """INSERT INTO scaling_decisions (endpoint_id, served_entity_id, before_replicas, after_replicas, reason,
                                          decided_by, seen)
           VALUES ($1, $2, $3, $4, $5, $6, $7)""",
        endpoint_id,
        decision.served_entity_id,
        decision.before,
        decision.after,
        decision.reason,
        decision.decided_by,
        dict(decision.seen),
    )
    await conn.execute(
        """DELETE FROM scaling_decisions WHERE endpoint_id = $1 AND id <= (
               SELECT id FROM scaling_decisions WHERE endpoint_id = $1 ORDER BY id DESC OFFSET $2 LIMIT 1)""",
        endpoint_id,
        KEPT_PER_ENDPOINT,
    )
    await events.record(conn, endpoint_id, [event_of(decision)])


async def newest(conn: Connection | Pool, endpoint_id: str, limit: int) -> Sequence[KeptDecision]:
    """Return the newest decisions about an endpoint's served entities, newest first."""
    rows = await conn.fetch(
        """SELECT d.*, e.name, e.config_version FROM scaling_decisions d
           JOIN served_entities e ON e.id = d.served_entity_id
           WHERE d.endpoint_id = $1 ORDER BY d.id DESC LIMIT $2""",
        endpoint_id,
        limit,
    )
    return [_kept(row) for row in rows]


def _kept(row: Record) -> KeptDecision:
    return KeptDecision(
        ScalingDecision(
            served_entity_id=row["served_entity_id"],
            served_entity_name=row["name"],
            config_version=row["config_version"],
            before=row["before_replicas"],
            after=row["after_replicas"],
            reason=row["reason"],
            decided_by=DecidedBy(row["decided_by"]),
            seen=row["seen"],
        ),
        row["decided_at"],
    )
