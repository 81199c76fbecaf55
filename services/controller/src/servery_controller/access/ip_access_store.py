"""All SQL about IP access lists."""

from asyncpg import Record

from servery_common.contracts.ip_access import WorkspaceIpAccess
from servery_common.postgres.pool import Connection, Pool
from servery_controller.domain.ip_access import IpAccess, IpAccessList, ListType, published

_LIST = "id, label, list_type, addresses, enabled, created_at, created_by, updated_at, updated_by"


async def find_lists(conn: Connection | Pool, workspace_id: str) -> list[IpAccessList]:
    """Return the lists of a workspace, oldest first."""
    rows = await conn.fetch(
        f"SELECT {_LIST} FROM ip_access_lists WHERE workspace_id = $1 ORDER BY created_at, id", workspace_id
    )
    return [_list(row) for row in rows]


async def is_enabled(conn: Connection | Pool, workspace_id: str) -> bool:
    """Whether a workspace uses its lists; False when there is no such workspace."""
    enabled: bool | None = await conn.fetchval(
        "SELECT ip_access_enabled FROM workspaces WHERE id = $1", workspace_id
    )
    return bool(enabled)


async def set_enabled(conn: Connection, workspace_id: str, *, enabled: bool) -> None:
    """Have a workspace use its lists, or not."""
    await conn.execute("UPDATE workspaces SET ip_access_enabled = $2 WHERE id = $1", workspace_id, enabled)


async def principal_number(conn: Connection, principal_id: str) -> int | None:
    """Return the number of a principal, None when it is gone."""
    return await conn.fetchval("SELECT number FROM principals WHERE id = $1", principal_id)


async def insert_list(conn: Connection, workspace_id: str, new: IpAccessList) -> None:
    """Add a list."""
    await conn.execute(
        f"""INSERT INTO ip_access_lists (workspace_id, {_LIST})
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)""",
        workspace_id,
        new.id,
        new.label,
        new.list_type,
        new.addresses,
        new.enabled,
        new.created_at,
        new.created_by,
        new.updated_at,
        new.updated_by,
    )


async def update_list(conn: Connection, changed: IpAccessList) -> None:
    """Replace what may change of a list."""
    await conn.execute(
        """UPDATE ip_access_lists
           SET label = $2, list_type = $3, addresses = $4, enabled = $5, updated_at = $6, updated_by = $7
           WHERE id = $1""",
        changed.id,
        changed.label,
        changed.list_type,
        changed.addresses,
        changed.enabled,
        changed.updated_at,
        changed.updated_by,
    )


async def delete_list(conn: Connection, list_id: str) -> None:
    """Remove a list."""
    await conn.execute("DELETE FROM ip_access_lists WHERE id = $1", list_id)


async def published_ip_access(
    conn: Connection | Pool, workspace_id: str | None = None
) -> dict[str, WorkspaceIpAccess]:
    """Return what gateways are told, by workspace id. Of those that may be reached from everywhere, too: then a key
    goes only with its workspace (``quota_store.published_quotas`` says why that matters)."""
    rows = await conn.fetch(
        f"""SELECT w.id AS workspace, w.ip_access_enabled, l.* FROM workspaces w
            LEFT JOIN (SELECT workspace_id, {_LIST} FROM ip_access_lists WHERE enabled) l
                ON l.workspace_id = w.id AND w.ip_access_enabled
            WHERE $1::text IS NULL OR w.id = $1""",
        workspace_id,
    )
    enabled = {row["workspace"]: row["ip_access_enabled"] for row in rows}
    lists: dict[str, list[IpAccessList]] = {key: [] for key in enabled}
    for row in rows:
        if row["id"] is not None:
            lists[row["workspace"]].append(_list(row))
    return {
        key: published(key, IpAccess(enabled=enabled[key], lists=tuple(of_key)))
        for key, of_key in lists.items()
    }


def _list(row: Record) -> IpAccessList:
    return IpAccessList(
        id=row["id"],
        label=row["label"],
        list_type=ListType(row["list_type"]),
        addresses=tuple(row["addresses"]),
        enabled=row["enabled"],
        created_at=row["created_at"],
        created_by=row["created_by"],
        updated_at=row["updated_at"],
        updated_by=row["updated_by"],
    )
