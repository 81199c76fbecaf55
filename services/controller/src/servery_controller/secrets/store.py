"""All SQL of secrets. Values come and go sealed: what is readable never gets here."""

from dataclasses import dataclass
from datetime import datetime

from asyncpg import UniqueViolationError

from servery_common.errors import AlreadyExists
from servery_common.postgres.advisory_locks import hold_in_workspace
from servery_common.postgres.pool import Connection, Pool
from servery_controller.domain.permissions import Grantee
from servery_controller.domain.secrets import SecretPermission


@dataclass(frozen=True, slots=True)
class SecretKey:
    """A secret without its value."""

    key: str
    updated_at: datetime


async def count_scopes(conn: Connection, workspace_id: str) -> int:
    """How many scopes a workspace has; nobody else adds one until the transaction ends."""
    await hold_in_workspace(conn, "secret scopes", workspace_id)
    count: int | None = await conn.fetchval(
        "SELECT count(*) FROM secret_scopes WHERE workspace_id = $1", workspace_id
    )
    return count or 0


async def insert_scope(conn: Connection, workspace_id: str, scope: str) -> None:
    """Add a scope. Raises AlreadyExists."""
    try:
        await conn.execute(
            "INSERT INTO secret_scopes (workspace_id, name) VALUES ($1, $2)", workspace_id, scope
        )
    except UniqueViolationError:
        raise AlreadyExists(f"Scope {scope} already exists!") from None


async def delete_scope(conn: Connection, workspace_id: str, scope: str) -> None:
    """Remove a scope with its secrets and grants."""
    await conn.execute("DELETE FROM secret_scopes WHERE workspace_id = $1 AND name = $2", workspace_id, scope)


async def delete_scopes(conn: Connection, workspace_id: str) -> None:
    """Remove all scopes of a workspace that is being deleted."""
    await conn.execute("DELETE FROM secret_scopes WHERE workspace_id = $1", workspace_id)


async def lock_scope(conn: Connection, workspace_id: str, scope: str) -> bool:
    """Whether the scope exists; if so it stays as it is, for other writers, until the transaction ends."""
    found = await conn.fetchval(
        "SELECT 1 FROM secret_scopes WHERE workspace_id = $1 AND name = $2 FOR UPDATE", workspace_id, scope
    )
    return found is not None


async def granted(
    conn: Connection | Pool, workspace_id: str, scope: str
) -> dict[str, SecretPermission] | None:
    """What was granted on a scope, by grantee (``user:ann``); None when there is no such scope."""
    return (await _granted(conn, workspace_id, scope)).get(scope)


async def all_granted(pool: Pool, workspace_id: str) -> dict[str, dict[str, SecretPermission]]:
    """Every scope of a workspace, by name, with what was granted on it."""
    return await _granted(pool, workspace_id, None)


async def find_grantee(conn: Connection | Pool, workspace_id: str, name: str) -> Grantee | None:
    """Return who an ACL means by this name: a user or service principal before a group."""
    row = await conn.fetchrow(
        """SELECT kind, name FROM (
               SELECT kind, name, 1 AS rank FROM principals WHERE workspace_id = $1
               UNION ALL SELECT 'group', name, 2 FROM groups WHERE workspace_id = $1) AS known
           WHERE lower(name) = lower($2) ORDER BY rank LIMIT 1""",
        workspace_id,
        name,
    )
    return Grantee(row["kind"], row["name"]) if row else None


async def put_grant(
    conn: Connection, workspace_id: str, scope: str, grantee: Grantee, permission: SecretPermission
) -> bool:
    """Grant a permission in place of the one before; False when there is no such grantee (any more)."""
    table, column = _place_of(grantee)
    status = await conn.execute(
        f"""INSERT INTO secret_acls (workspace_id, scope, {column}, permission)
            SELECT $1, $2, t.number, $5 FROM {table} t
            WHERE t.workspace_id = $1 AND lower(t.name) = lower($4)
              AND $3 = {"'group'" if table == "groups" else "t.kind"}
            FOR KEY SHARE OF t
            ON CONFLICT (workspace_id, scope, {column}) DO UPDATE SET permission = excluded.permission""",
        workspace_id,
        scope,
        grantee.kind,
        grantee.name,
        permission,
    )
    return status == "INSERT 0 1"


async def delete_grant(conn: Connection, workspace_id: str, scope: str, grantee: Grantee) -> bool:
    """Take back what was granted; False when nothing was."""
    table, column = _place_of(grantee)
    status = await conn.execute(
        f"""DELETE FROM secret_acls a USING {table} t
            WHERE a.workspace_id = $1 AND a.scope = $2 AND a.{column} = t.number
              AND t.workspace_id = $1 AND lower(t.name) = lower($4)
              AND $3 = {"'group'" if table == "groups" else "t.kind"}""",
        workspace_id,
        scope,
        grantee.kind,
        grantee.name,
    )
    return status == "DELETE 1"


async def count_other_secrets(conn: Connection, workspace_id: str, scope: str, key: str) -> int:
    """How many secrets a scope has besides this one."""
    count: int | None = await conn.fetchval(
        "SELECT count(*) FROM secrets WHERE workspace_id = $1 AND scope = $2 AND key <> $3",
        workspace_id,
        scope,
        key,
    )
    return count or 0


async def put_secret(conn: Connection, workspace_id: str, scope: str, key: str, sealed: bytes) -> None:
    """Store a value in place of the one before."""
    await conn.execute(
        """INSERT INTO secrets (workspace_id, scope, key, sealed) VALUES ($1, $2, $3, $4)
           ON CONFLICT (workspace_id, scope, key) DO UPDATE SET sealed = excluded.sealed, updated_at = now()""",
        workspace_id,
        scope,
        key,
        sealed,
    )


async def delete_secret(conn: Connection, workspace_id: str, scope: str, key: str) -> bool:
    """Remove a secret; False when there is none."""
    status = await conn.execute(
        "DELETE FROM secrets WHERE workspace_id = $1 AND scope = $2 AND key = $3", workspace_id, scope, key
    )
    return status == "DELETE 1"


async def read_secret(conn: Connection | Pool, workspace_id: str, scope: str, key: str) -> bytes | None:
    """Return a sealed value."""
    return await conn.fetchval(
        "SELECT sealed FROM secrets WHERE workspace_id = $1 AND scope = $2 AND key = $3",
        workspace_id,
        scope,
        key,
    )


async def list_secrets(conn: Connection | Pool, workspace_id: str, scope: str) -> list[SecretKey]:
    """The secrets of a scope, by key, without their values."""
    rows = await conn.fetch(
        "SELECT key, updated_at FROM secrets WHERE workspace_id = $1 AND scope = $2 ORDER BY key",
        workspace_id,
        scope,
    )
    return [SecretKey(row["key"], row["updated_at"]) for row in rows]


async def _granted(
    conn: Connection | Pool, workspace_id: str, scope: str | None
) -> dict[str, dict[str, SecretPermission]]:
    rows = await conn.fetch(
        """SELECT s.name AS scope, coalesce(p.kind, 'group') || ':' || coalesce(p.name, g.name) AS grantee, a.permission
           FROM secret_scopes s
           LEFT JOIN secret_acls a ON (a.workspace_id, a.scope) = (s.workspace_id, s.name)
           LEFT JOIN principals p ON p.number = a.principal_number
           LEFT JOIN groups g ON g.number = a.group_number
           WHERE s.workspace_id = $1 AND ($2::text IS NULL OR s.name = $2)
           ORDER BY s.name, coalesce(p.name, g.name)""",
        workspace_id,
        scope,
    )
    scopes: dict[str, dict[str, SecretPermission]] = {}
    for row in rows:
        grants = scopes.setdefault(row["scope"], {})
        if row["permission"] is not None:
            grants[row["grantee"]] = SecretPermission(row["permission"])
    return scopes


def _place_of(grantee: Grantee) -> tuple[str, str]:
    """Return where grantees of this kind are, and the column of ``secret_acls`` that holds their number."""
    return ("groups", "group_number") if grantee.kind == "group" else ("principals", "principal_number")
