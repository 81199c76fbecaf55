"""Identities as gateways know them, from Postgres: principals with all groups they belong to, directly or not."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from asyncpg import Record

from servery_common.contracts.access import Identity, TokenGrant
from servery_common.postgres.pool import Connection, Pool
from servery_controller.domain.directory import ADMINS

# UNION drops what was seen, so the walk ends even if groups contained each other. What it found is put together once
# for all principals: looked through for each of them, it would make the time grow with their square.
_IDENTITIES = """
    WITH RECURSIVE chosen AS (
        SELECT p.* FROM principals p WHERE p.active AND {condition}
    ), belonging (principal_number, group_number) AS (
        SELECT m.principal_number, m.group_number
        FROM memberships m JOIN chosen c ON c.number = m.principal_number
        UNION
        SELECT b.principal_number, m.group_number
        FROM belonging b JOIN memberships m ON m.subgroup_number = b.group_number
    )
    SELECT c.id, c.kind, c.name, c.display_name, c.workspace_id, c.operator, w.region,
           coalesce(n.names, '{{}}') AS groups
    FROM chosen c
    JOIN workspaces w ON w.id = c.workspace_id
    LEFT JOIN (
        SELECT b.principal_number, array_agg(g.name ORDER BY g.name) AS names
        FROM belonging b JOIN groups g ON g.number = b.group_number GROUP BY b.principal_number
    ) n ON n.principal_number = c.number
"""
_CONDITIONS: Mapping[str, str] = MappingProxyType(
    {
        "all": "true",
        "workspace": "p.workspace_id = $1",
        "principal": "p.id = $1",
    }
)


@dataclass(frozen=True, slots=True)
class Identities:
    """Reads identities. ``served_regions`` are those this installation serves; empty: all."""

    served_regions: Collection[str] = ()

    async def find(self, conn: Connection | Pool, principal_id: str) -> Identity | None:
        """Return an active principal's identity."""
        found = await self._read(conn, "principal", principal_id)
        return found.get(principal_id)

    async def of_workspace(self, conn: Connection | Pool, workspace_id: str) -> dict[str, Identity]:
        """Return the identities of the active principals of a workspace, by principal id."""
        return await self._read(conn, "workspace", workspace_id)

    async def all(self, conn: Connection | Pool) -> dict[str, Identity]:
        """Return every active principal's identity, by principal id."""
        return await self._read(conn, "all")

    async def _read(self, conn: Connection | Pool, which: str, *arguments: str) -> dict[str, Identity]:
        rows = await conn.fetch(_IDENTITIES.format(condition=_CONDITIONS[which]), *arguments)
        return {row["id"]: self._identity(row) for row in rows}

    def _identity(self, row: Record) -> Identity:
        groups: tuple[str, ...] = tuple(row["groups"])
        return Identity(
            principal_id=row["id"],
            kind=row["kind"],
            user_name=row["name"],
            display_name=row["display_name"],
            workspace_id=row["workspace_id"],
            groups=groups,
            admin=ADMINS in groups,
            operator=row["operator"],
            supported=is_served(row["region"], self.served_regions),
        )


def is_served(region: str, served_regions: Collection[str]) -> bool:
    """Whether a workspace of this region is served. A workspace that names no region is served everywhere."""
    return not region or not served_regions or region in served_regions


async def find_grants(
    conn: Connection | Pool, *, workspace_id: str | None = None, sha256: str | None = None
) -> dict[str, TokenGrant]:
    """Return the valid tokens of active principals by SHA-256: all, those of a workspace, or one."""
    rows = await conn.fetch(
        """SELECT t.sha256, t.principal_id, t.expires_at
           FROM access_tokens t JOIN principals p ON p.id = t.principal_id
           WHERE p.active AND (t.expires_at IS NULL OR t.expires_at > now())
             AND ($1::text IS NULL OR p.workspace_id = $1)
             AND ($2::text IS NULL OR t.sha256 = $2)""",
        workspace_id,
        sha256,
    )
    return {row["sha256"]: _grant(row) for row in rows}


def _grant(row: Record) -> TokenGrant:
    expires_at: Any = row["expires_at"]
    return TokenGrant(
        token_sha256=row["sha256"],
        principal_id=row["principal_id"],
        expires_at_ms=int(expires_at.timestamp() * 1000) if expires_at else None,
    )
