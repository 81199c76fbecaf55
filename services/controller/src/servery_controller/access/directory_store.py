"""All SQL about workspaces, principals, groups and memberships."""

from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Any

from asyncpg import Record, UniqueViolationError

from servery_common.contracts.access import PrincipalKind
from servery_common.errors import AlreadyExists
from servery_common.postgres.pool import Connection, Pool
from servery_controller.domain.directory import (
    ADMINS,
    SYSTEM_GROUPS,
    USERS,
    Group,
    MemberKind,
    Principal,
    Reference,
    Workspace,
)

_PRINCIPAL = ", ".join(field.name for field in fields(Principal))


async def insert_workspace(conn: Connection, workspace_id: str, name: str, region: str) -> None:
    """Add a workspace with its system groups. Raises AlreadyExists when the name is taken."""
    try:
        await conn.execute(
            "INSERT INTO workspaces (id, name, region) VALUES ($1, $2, $3)", workspace_id, name, region
        )
    except UniqueViolationError:
        raise AlreadyExists(f"A workspace '{name}' exists already. Choose another name.") from None
    for group in SYSTEM_GROUPS:
        await insert_group(conn, workspace_id, group)


async def find_workspaces(conn: Connection | Pool, workspace_id: str | None = None) -> list[Workspace]:
    """Return all workspaces by name, or the one with this id."""
    rows = await conn.fetch(
        "SELECT id, name, region, created_at FROM workspaces WHERE $1::text IS NULL OR id = $1 ORDER BY name",
        workspace_id,
    )
    return [Workspace(**row) for row in rows]


async def lock_workspace(conn: Connection, workspace_id: str) -> bool:
    """Hold the workspace until the transaction ends: changes of one directory happen one after the other."""
    found = await conn.fetchval("SELECT true FROM workspaces WHERE id = $1 FOR NO KEY UPDATE", workspace_id)
    return bool(found)


async def count_remaining_endpoints(conn: Connection, workspace_id: str) -> int:
    """How many endpoints the workspace has, those included whose resources are still being freed."""
    count: int | None = await conn.fetchval(
        "SELECT count(*) FROM endpoints WHERE workspace_id = $1", workspace_id
    )
    return count or 0


async def delete_workspace(conn: Connection, workspace_id: str) -> None:
    """Remove a workspace with everybody in it."""
    await conn.execute("DELETE FROM workspaces WHERE id = $1", workspace_id)


async def insert_principal(
    conn: Connection,
    principal_id: str,
    workspace_id: str,
    kind: PrincipalKind,
    name: str,
    display_name: str,
    *,
    active: bool = True,
) -> Principal:
    """Add a principal, as a member of ``users``. Raises AlreadyExists when its name is taken."""
    try:
        row = await conn.fetchrow(
            f"""INSERT INTO principals (id, workspace_id, kind, name, display_name, active)
                VALUES ($1, $2, $3, $4, $5, $6) RETURNING {_PRINCIPAL}""",
            principal_id,
            workspace_id,
            kind,
            name,
            display_name,
            active,
        )
    except UniqueViolationError:
        raise AlreadyExists(f"{_KIND_NAMES[kind]} '{name}' exists already in this workspace.") from None
    assert row is not None
    principal = _principal(row)
    users = await find_group(conn, workspace_id, USERS)
    await add_members(conn, users.number, principals=[principal.number])
    return principal


_KIND_NAMES: dict[PrincipalKind, str] = {"user": "User", "service_principal": "Service principal"}


async def get_principal(
    conn: Connection | Pool, workspace_id: str, kind: PrincipalKind, number: int
) -> Principal | None:
    """Return one principal of a workspace by its number."""
    row = await conn.fetchrow(
        f"SELECT {_PRINCIPAL} FROM principals WHERE number = $1 AND workspace_id = $2 AND kind = $3",
        number,
        workspace_id,
        kind,
    )
    return _principal(row) if row else None


async def find_principal(conn: Connection | Pool, workspace_id: str, name: str) -> Principal | None:
    """Return a principal by user name or application id."""
    row = await conn.fetchrow(
        f"SELECT {_PRINCIPAL} FROM principals WHERE workspace_id = $1 AND lower(name) = lower($2)",
        workspace_id,
        name,
    )
    return _principal(row) if row else None


async def find_principals(conn: Connection | Pool, workspace_id: str, kind: PrincipalKind) -> list[Principal]:
    """Return the users or the service principals of a workspace, in the order they were made."""
    rows = await conn.fetch(
        f"SELECT {_PRINCIPAL} FROM principals WHERE workspace_id = $1 AND kind = $2 ORDER BY number",
        workspace_id,
        kind,
    )
    return [_principal(row) for row in rows]


async def lock_principal(conn: Connection, principal_id: str) -> bool:
    """Whether the principal exists; if so credentials are added to it one after the other, and it stays.

    Until the transaction ends.
    """
    found = await conn.fetchval("SELECT true FROM principals WHERE id = $1 FOR NO KEY UPDATE", principal_id)
    return bool(found)


async def principal_ids(conn: Connection, workspace_id: str) -> list[str]:
    """Return the ids of everybody in a workspace."""
    rows = await conn.fetch("SELECT id FROM principals WHERE workspace_id = $1", workspace_id)
    return [row["id"] for row in rows]


async def update_principal(conn: Connection, number: int, *, display_name: str, active: bool) -> None:
    """Set what may change of a principal."""
    await conn.execute(
        "UPDATE principals SET display_name = $2, active = $3 WHERE number = $1", number, display_name, active
    )


async def delete_principal(conn: Connection, number: int) -> None:
    """Remove a principal with its tokens, secrets and memberships."""
    await conn.execute("DELETE FROM principals WHERE number = $1", number)


async def insert_group(conn: Connection, workspace_id: str, name: str) -> Group:
    """Add a group. Raises AlreadyExists when its name is taken."""
    try:
        row = await conn.fetchrow(
            "INSERT INTO groups (workspace_id, name) VALUES ($1, $2) RETURNING number, workspace_id, name",
            workspace_id,
            name,
        )
    except UniqueViolationError:
        raise _group_exists(name) from None
    assert row is not None
    return Group(**row)


async def rename_group(conn: Connection, number: int, name: str) -> None:
    """Rename a group. Raises AlreadyExists when the name is taken."""
    try:
        await conn.execute("UPDATE groups SET name = $2 WHERE number = $1", number, name)
    except UniqueViolationError:
        raise _group_exists(name) from None


async def get_group(conn: Connection | Pool, workspace_id: str, number: int) -> Group | None:
    """Return one group of a workspace."""
    row = await conn.fetchrow(
        "SELECT number, workspace_id, name FROM groups WHERE number = $1 AND workspace_id = $2",
        number,
        workspace_id,
    )
    return Group(**row) if row else None


async def find_group(conn: Connection | Pool, workspace_id: str, name: str) -> Group:
    """Return a group that exists for certain, such as a system group."""
    row = await conn.fetchrow(
        "SELECT number, workspace_id, name FROM groups WHERE workspace_id = $1 AND name = $2",
        workspace_id,
        name,
    )
    assert row is not None, f"workspace {workspace_id} has no group {name}"
    return Group(**row)


async def find_groups(conn: Connection | Pool, workspace_id: str) -> list[Group]:
    """Return the groups of a workspace, in the order they were made."""
    rows = await conn.fetch(
        "SELECT number, workspace_id, name FROM groups WHERE workspace_id = $1 ORDER BY number", workspace_id
    )
    return [Group(**row) for row in rows]


async def delete_group(conn: Connection, number: int) -> None:
    """Remove a group; its members stay."""
    await conn.execute("DELETE FROM groups WHERE number = $1", number)


async def kinds_of(conn: Connection, workspace_id: str, numbers: Collection[int]) -> dict[int, MemberKind]:
    """What the numbers stand for in a workspace; those that stand for nothing there are left out."""
    rows = await conn.fetch(
        """SELECT number, kind FROM principals WHERE workspace_id = $1 AND number = ANY($2::bigint[])
           UNION ALL
           SELECT number, 'group' FROM groups WHERE workspace_id = $1 AND number = ANY($2::bigint[])""",
        workspace_id,
        list(numbers),
    )
    return {row["number"]: MemberKind(row["kind"]) for row in rows}


async def add_members(
    conn: Connection, group: int, *, principals: Sequence[int] = (), subgroups: Sequence[int] = ()
) -> None:
    """Add members to a group; who is one already stays one."""
    await conn.execute(
        """INSERT INTO memberships (group_number, principal_number, subgroup_number)
           SELECT $1::bigint, number, NULL::bigint FROM unnest($2::bigint[]) AS number
           UNION ALL
           SELECT $1::bigint, NULL::bigint, number FROM unnest($3::bigint[]) AS number
           ON CONFLICT DO NOTHING""",
        group,
        list(principals),
        list(subgroups),
    )


async def remove_members(conn: Connection, group: int, numbers: Collection[int]) -> None:
    """Take members out of a group; who is none stays none."""
    await conn.execute(
        """DELETE FROM memberships
           WHERE group_number = $1 AND coalesce(principal_number, subgroup_number) = ANY($2::bigint[])""",
        group,
        list(numbers),
    )


async def members_of(conn: Connection | Pool, groups: Collection[int]) -> dict[int, list[Reference]]:
    """The direct members of each group."""
    rows = await conn.fetch(
        """SELECT m.group_number AS owner, p.number, p.kind,
                  coalesce(nullif(p.display_name, ''), p.name) AS display
           FROM memberships m JOIN principals p ON p.number = m.principal_number
           WHERE m.group_number = ANY($1::bigint[])
           UNION ALL
           SELECT m.group_number, g.number, 'group', g.name
           FROM memberships m JOIN groups g ON g.number = m.subgroup_number
           WHERE m.group_number = ANY($1::bigint[])
           ORDER BY number""",
        list(groups),
    )
    return _references(rows)


async def groups_of(conn: Connection | Pool, members: Collection[int]) -> dict[int, list[Reference]]:
    """The groups each principal or group is a direct member of."""
    rows = await conn.fetch(
        """SELECT coalesce(m.principal_number, m.subgroup_number) AS owner, g.number, 'group' AS kind,
                  g.name AS display
           FROM memberships m JOIN groups g ON g.number = m.group_number
           WHERE m.principal_number = ANY($1::bigint[]) OR m.subgroup_number = ANY($1::bigint[])
           ORDER BY g.number""",
        list(members),
    )
    return _references(rows)


async def nesting(conn: Connection, workspace_id: str) -> dict[int, list[int]]:
    """The groups of a workspace that have groups as members, with those."""
    rows = await conn.fetch(
        """SELECT m.group_number, array_agg(m.subgroup_number) AS subgroups
           FROM memberships m JOIN groups g ON g.number = m.group_number
           WHERE g.workspace_id = $1 AND m.subgroup_number IS NOT NULL
           GROUP BY m.group_number""",
        workspace_id,
    )
    return {row["group_number"]: row["subgroups"] for row in rows}


async def has_admin(conn: Connection, workspace_id: str) -> bool:
    """Whether somebody active administers the workspace."""
    found = await conn.fetchval(
        """WITH RECURSIVE inside (number) AS (
               SELECT number FROM groups WHERE workspace_id = $1 AND name = $2
               UNION
               SELECT m.subgroup_number FROM memberships m JOIN inside i ON m.group_number = i.number
               WHERE m.subgroup_number IS NOT NULL
           )
           SELECT EXISTS (
               SELECT FROM memberships m
               JOIN inside i ON m.group_number = i.number
               JOIN principals p ON p.number = m.principal_number
               WHERE p.active)""",
        workspace_id,
        ADMINS,
    )
    return bool(found)


def _group_exists(name: str) -> AlreadyExists:
    return AlreadyExists(f"Group '{name}' exists already in this workspace.")


def _references(rows: Sequence[Record]) -> dict[int, list[Reference]]:
    found: dict[int, list[Reference]] = {}
    for row in rows:
        reference = Reference(row["number"], MemberKind(row["kind"]), row["display"])
        found.setdefault(row["owner"], []).append(reference)
    return found


def _principal(row: Record) -> Principal:
    values: dict[str, Any] = dict(row)
    return Principal(**values)
