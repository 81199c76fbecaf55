"""All SQL about grants on endpoints."""

from collections.abc import Sequence

from servery_common.contracts.access import Identity
from servery_common.postgres.pool import Connection, Pool
from servery_controller.domain.permissions import Grantee, Grants, PermissionLevel


async def load(conn: Connection | Pool, endpoint_ids: Sequence[str]) -> dict[str, Grants]:
    """Return the grants of endpoints, by endpoint id."""
    rows = await conn.fetch(
        """SELECT endpoint_id, kind, name, level FROM endpoint_grants WHERE endpoint_id = ANY($1)
           ORDER BY endpoint_id, kind, name""",
        endpoint_ids,
    )
    loaded: dict[str, dict[Grantee, PermissionLevel]] = {endpoint_id: {} for endpoint_id in endpoint_ids}
    for row in rows:
        grantee = Grantee(row["kind"], row["name"])
        loaded[row["endpoint_id"]][grantee] = PermissionLevel(row["level"])
    return {**loaded}


async def replace(conn: Connection, endpoint_id: str, grants: Grants) -> None:
    """Make these the only grants on an endpoint."""
    await conn.execute("DELETE FROM endpoint_grants WHERE endpoint_id = $1", endpoint_id)
    await conn.executemany(
        "INSERT INTO endpoint_grants (endpoint_id, kind, name, level) VALUES ($1, $2, $3, $4)",
        [(endpoint_id, grantee.kind, grantee.name, level) for grantee, level in grants.items()],
    )


async def visible_endpoint_ids(pool: Pool, caller: Identity) -> list[str]:
    """Ids of the endpoints the caller has any permission on, by the endpoints' names."""
    rows = await pool.fetch(
        """SELECT id FROM endpoints e
           WHERE workspace_id = $1 AND deleted_at IS NULL
             AND ($2 OR EXISTS (SELECT 1 FROM endpoint_grants g
                                WHERE g.endpoint_id = e.id AND g.kind || ':' || g.name = ANY($3)))
           ORDER BY name""",
        caller.workspace_id,
        caller.admin,
        list(caller.grantees),
    )
    return [row["id"] for row in rows]


async def find_endpoint_name(
    conn: Connection | Pool, workspace_id: str, endpoint_id: str, *, lock: bool = False
) -> str | None:
    """Return the name of a live endpoint of a workspace; with ``lock``, hold its row until the transaction ends."""
    return await conn.fetchval(
        "SELECT name FROM endpoints WHERE workspace_id = $1 AND id = $2 AND deleted_at IS NULL"
        + (" FOR NO KEY UPDATE" if lock else ""),
        workspace_id,
        endpoint_id,
    )
