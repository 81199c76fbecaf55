"""Who is who in a workspace, by name: for those who grant something, and for what is done on somebody's behalf."""

from servery_common.contracts.access import Identity
from servery_common.postgres.pool import Pool
from servery_controller.access.identity_store import Identities
from servery_controller.domain.permissions import Grantee


class Directory:
    """Reads principals and groups."""

    def __init__(self, pool: Pool, identities: Identities) -> None:
        self._pool = pool
        self._identities = identities

    async def find(self, workspace_id: str, user_name: str) -> Identity | None:
        """Return the user or service principal of this name; None when it is no active member of the workspace."""
        return await self._identities.find_named(self._pool, workspace_id, user_name)

    async def find_grantee(self, workspace_id: str, grantee: Grantee) -> Grantee | None:
        """Return the grantee by the very name it has in the workspace; None when there is no such one."""
        if grantee.kind == "group":
            query = "SELECT name FROM groups WHERE workspace_id = $1 AND lower(name) = lower($2)"
            name = await self._pool.fetchval(query, workspace_id, grantee.name)
        else:
            query = "SELECT name FROM principals WHERE workspace_id = $1 AND lower(name) = lower($2) AND kind = $3"
            name = await self._pool.fetchval(query, workspace_id, grantee.name, grantee.kind)
        return Grantee(grantee.kind, name) if name is not None else None
