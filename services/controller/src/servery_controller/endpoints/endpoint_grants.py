"""All SQL about grants on endpoints."""

from collections.abc import Sequence

from servery_common.contracts.access import Identity
from servery_common.postgres.pool import Connection, Pool
from servery_controller.domain.permissions import Grantee, Grants, PermissionLevel


async def load(conn: Connection | Pool, endpoint_ids: Sequence[str]) -> dict[str, Grants]:
    """Return the grants of endpoints, by endpoint id."""
    rows = await conn.fetch(
        """SELECT g.endpoint_id, coalesce(p.kind, 'group') AS kind, coalesce(p.name, gr.name) AS name, g.level
           FROM endpoint_grants g
           LEFT JOIN principals p ON p.number = g.principal_number
           LEFT JOIN groups gr ON gr.number = g.group_number
           WHERE g.endpoint_id = ANY($1)""",
        endpoint_ids,
    )
    loaded: dict[str, dict[Grantee, PermissionLevel]] = {endpoint_id: {} for endpoint_id in endpoint_ids}
    for row in rows:
        grantee = Grantee(row["kind"], row["name"])
        loaded[row["endpoint_id"]][grantee] = PermissionLevel(row["level"])
    return {**loaded}


async def put(conn: Connection, endpoint_id: str, grantee: Grantee, level: PermissionLevel) -> bool:
    """Give a grantee of the endpoint's workspace this level; False when there is no such grantee.

    Names are compared as everywhere in the directory: without regard to case.
    """
    table, column = (
        ("groups", "group_number") if grantee.kind == "group" else ("principals", "principal_number")
    )
    written = await conn.fetchval(
        f"""INSERT INTO endpoint_grants (endpoint_id, {column}, level)
            SELECT e.id, t.number, $4 FROM endpoints e JOIN {table} t ON t.workspace_id = e.workspace_id
            WHERE e.id = $1 AND lower(t.name) = lower($2) AND $3 = {"'group'" if table == "groups" else "t.kind"}
            FOR KEY SHARE OF t
            ON CONFLICT (endpoint_id, {column}) DO UPDATE SET level = excluded.level
            RETURNING 1""",
        endpoint_id,
        grantee.name,
        grantee.kind,
        level,
    )
    return written is not None


async def clear(conn: Connection, endpoint_id: str) -> None:
    """Take all grants on an endpoint back."""
    await conn.execute("DELETE FROM endpoint_grants WHERE endpoint_id = $1", endpoint_id)


async def make_endpoints_due(conn: Connection, number: int) -> dict[str, int]:
    """Have the endpoints looked at on which this principal or group, which is about to change, has a grant.

    Gateways know grantees by name, so they have to be told of another name and of a deletion. Returns the
    endpoints' new generations by their ids.
    """
    rows = await conn.fetch(
        """UPDATE endpoints SET generation = generation + 1, due_at = now()
           WHERE id IN (SELECT endpoint_id FROM endpoint_grants WHERE $1 IN (principal_number, group_number))
           RETURNING id, generation""",
        number,
    )
    return {row["id"]: row["generation"] for row in rows}


async def visible_endpoint_ids(pool: Pool, caller: Identity) -> list[str]:
    """Ids of the endpoints the caller has any permission on, by the endpoints' names."""
    rows = await pool.fetch(
        """SELECT id FROM endpoints e
           WHERE workspace_id = $1 AND deleted_at IS NULL
             AND ($2 OR EXISTS (SELECT 1 FROM endpoint_grants g
                                LEFT JOIN principals p ON p.number = g.principal_number
                                LEFT JOIN groups gr ON gr.number = g.group_number
                                WHERE g.endpoint_id = e.id AND (p.id = $3 OR gr.name = ANY($4))))
           ORDER BY name""",
        caller.workspace_id,
        caller.admin,
        caller.principal_id,
        list(caller.groups),
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
