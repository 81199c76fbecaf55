"""The SQL of replicas: which there should be, and where they belong."""

from collections.abc import Sequence

from servery_common.postgres.pool import Connection, Pool
from servery_controller.domain.endpoint import Replica


async def all_replica_ids(pool: Pool) -> set[str]:
    """Ids of all replicas somebody decided to have."""
    return {row["id"] for row in await pool.fetch("SELECT id FROM replicas")}


async def adopt_replicas(conn: Connection, source_id: str, heir_id: str) -> None:
    """Let a served entity take over the replicas of another one, and how many there should be.

    The count is the row's: the scaler may have changed it since the step began.
    """
    await conn.execute(
        """UPDATE served_entities heir
           SET adopts = NULL,
               desired_replicas = least(greatest(source.desired_replicas, heir.min_replicas), heir.max_replicas)
           FROM served_entities source WHERE heir.id = $2 AND source.id = $1""",
        source_id,
        heir_id,
    )
    await conn.execute(
        "UPDATE replicas SET served_entity_id = $2 WHERE served_entity_id = $1 AND NOT stopping",
        source_id,
        heir_id,
    )


async def insert_replica(conn: Connection, replica: Replica) -> None:
    """Decide to have one more replica; the node it gets is written with the others'."""
    await conn.execute(
        "INSERT INTO replicas (id, served_entity_id, created_at) VALUES ($1, $2, $3)",
        replica.id,
        replica.served_entity_id,
        replica.created_at,
    )


async def place_replica(conn: Connection, replica_id: str, node: str | None) -> None:
    """Decide where a replica belongs; None: its node never took it, decide again."""
    await conn.execute("UPDATE replicas SET node = $2 WHERE id = $1", replica_id, node)


async def mark_stopping(conn: Connection, replica_ids: Sequence[str]) -> None:
    """Decide to have these no longer."""
    await conn.execute("UPDATE replicas SET stopping = true WHERE id = ANY($1)", replica_ids)


async def delete_replicas(conn: Connection, replica_ids: Sequence[str]) -> None:
    """Forget replicas that have stopped."""
    await conn.execute("DELETE FROM replicas WHERE id = ANY($1)", replica_ids)
