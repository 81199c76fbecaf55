"""The SQL of who holds how many slots, and of giving one back."""

from collections.abc import Mapping

from servery_common.postgres.pool import Connection, Pool
from servery_controller.domain.capacity import Holding, Usage, Workspace
from servery_controller.domain.sizes import SLOTS_PER_REPLICA


async def load_usage(pool: Pool, default_quota: int | None, regions: Mapping[str, int]) -> Usage:
    """Return what is held by replicas that have a node, and the quotas. ``default_quota`` is a workspace's."""
    async with pool.acquire() as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        replicas = await conn.fetch(
            """SELECT r.id, r.stopping, r.served_entity_id, e.config_version, e.min_replicas, e.endpoint_id,
                      p.workspace_id
               FROM replicas r JOIN served_entities e ON e.id = r.served_entity_id
                               JOIN endpoints p ON p.id = e.endpoint_id
               WHERE r.node IS NOT NULL ORDER BY r.created_at, r.id"""
        )
        asleep = await conn.fetch(
            """SELECT p.workspace_id, count(*) AS entities FROM served_entities e
               JOIN endpoint_configs c ON c.endpoint_id = e.endpoint_id AND c.version = e.config_version
               JOIN endpoints p ON p.id = e.endpoint_id
               WHERE c.phase = 'ACTIVE' AND e.desired_replicas = 0 AND p.deleted_at IS NULL
               GROUP BY p.workspace_id"""
        )
        workspaces = await conn.fetch("SELECT id, name, region, quota_compute_slots FROM workspaces")
    sleeping = {row["workspace_id"]: row["entities"] for row in asleep}
    return Usage(
        holdings=[
            Holding(
                replica_id=row["id"],
                served_entity_id=row["served_entity_id"],
                config_version=row["config_version"],
                endpoint_id=row["endpoint_id"],
                workspace_id=row["workspace_id"],
                slots=SLOTS_PER_REPLICA,
                promised=row["min_replicas"],
                stopping=row["stopping"],
            )
            for row in replicas
        ],
        workspaces={
            row["id"]: Workspace(
                id=row["id"],
                name=row["name"],
                region=row["region"],
                quota=default_quota if row["quota_compute_slots"] is None else row["quota_compute_slots"],
                asleep=sleeping.get(row["id"], 0),
            )
            for row in workspaces
        },
        regions=regions,
    )


async def stop_extra(conn: Connection, endpoint_id: str, replica_id: str) -> bool:
    """Decide to have a replica no longer and have its endpoint looked at; False when that was decided already."""
    await conn.execute("UPDATE endpoints SET due_at = now() WHERE id = $1", endpoint_id)
    stopped = await conn.fetchval(
        "UPDATE replicas SET stopping = true WHERE id = $1 AND NOT stopping RETURNING true", replica_id
    )
    return bool(stopped)


async def entity_name(conn: Connection, served_entity_id: str) -> str | None:
    """Return the name of a served entity."""
    return await conn.fetchval("SELECT name FROM served_entities WHERE id = $1", served_entity_id)
