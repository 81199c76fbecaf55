"""Use cases of the permissions API: who may do what with an endpoint, and changing that.

Permissions are asked for by the endpoint's id, as Databricks does: a name that was deleted and given again
is another endpoint. A change is in Postgres when it is answered; the reconciler, hinted at, tells the gateways.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from servery_common.contracts.access import Identity
from servery_common.errors import NotFound
from servery_common.postgres.pool import Connection, Pool
from servery_controller import endpoint_grants, store
from servery_controller.domain.permissions import (
    Grantee,
    Grants,
    PermissionLevel,
    check_still_manages,
    collect,
    describe,
    require,
)

log = structlog.get_logger()


class Directory(Protocol):
    """What this needs to know of principals and groups."""

    async def find_grantee(self, workspace_id: str, grantee: Grantee) -> Grantee | None:
        """Return the grantee by the very name it has in the workspace, or None when there is no such one."""
        ...


@dataclass(frozen=True, slots=True)
class EndpointPermissions:
    """The direct grants on one endpoint."""

    endpoint_id: str
    grants: Grants


class PermissionService:
    """The use cases; ``hint`` wakes the reconciler for one endpoint id."""

    def __init__(self, pool: Pool, directory: Directory, hint: Callable[[str], None]) -> None:
        self._pool = pool
        self._directory = directory
        self._hint = hint

    async def get(self, endpoint_id: str, caller: Identity) -> EndpointPermissions:
        """Return who may do what, to whoever may view the endpoint. Raises NotFound, PermissionDenied."""
        return await self._load(self._pool, endpoint_id, caller, PermissionLevel.CAN_VIEW)

    async def replace(self, endpoint_id: str, wanted: Grants, caller: Identity) -> EndpointPermissions:
        """Make these the only direct grants. Raises NotFound, PermissionDenied, InvalidParameter."""
        return await self._change(endpoint_id, caller, wanted, keep=False)

    async def merge(self, endpoint_id: str, wanted: Grants, caller: Identity) -> EndpointPermissions:
        """Give these grantees these levels and leave the others alone. Raises as ``replace``."""
        return await self._change(endpoint_id, caller, wanted, keep=True)

    async def _change(
        self, endpoint_id: str, caller: Identity, wanted: Grants, *, keep: bool
    ) -> EndpointPermissions:
        # The permission first: who has none learns nothing about who exists.
        await self._load(self._pool, endpoint_id, caller, PermissionLevel.CAN_MANAGE)
        known = collect(
            [(await self._known(caller.workspace_id, grantee), level) for grantee, level in wanted.items()]
        )
        async with self._pool.acquire() as conn, conn.transaction():
            before = await self._load(conn, endpoint_id, caller, PermissionLevel.CAN_MANAGE, lock=True)
            after: Grants = {**before.grants, **known} if keep else known
            check_still_manages(caller, after)
            await endpoint_grants.replace(conn, endpoint_id, after)
            await store.touch_endpoint(conn, endpoint_id)
        self._hint(endpoint_id)
        log.info(
            "permissions_changed",
            endpoint_id=endpoint_id,
            by=caller.user_name,
            grants={str(grantee): level for grantee, level in after.items()},
        )
        return EndpointPermissions(endpoint_id, after)

    async def _load(
        self,
        conn: Connection | Pool,
        endpoint_id: str,
        caller: Identity,
        level: PermissionLevel,
        *,
        lock: bool = False,
    ) -> EndpointPermissions:
        name = await endpoint_grants.find_endpoint_name(conn, caller.workspace_id, endpoint_id, lock=lock)
        if name is None:
            raise NotFound(
                f"Endpoint with id '{endpoint_id}' does not exist. Permissions are asked for by the endpoint's id, "
                "which GET /api/2.0/serving-endpoints/{name} answers."
            )
        grants = (await endpoint_grants.load(conn, [endpoint_id]))[endpoint_id]
        require(caller, level, grants, name)
        return EndpointPermissions(endpoint_id, grants)

    async def _known(self, workspace_id: str, grantee: Grantee) -> Grantee:
        found = await self._directory.find_grantee(workspace_id, grantee)
        if found is None:
            raise NotFound(f"{describe(grantee)} does not exist in this workspace.")
        return found
