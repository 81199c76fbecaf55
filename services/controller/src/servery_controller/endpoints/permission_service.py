"""Use cases of the permissions API: who may do what with an endpoint, and changing that.

Permissions are asked for by the endpoint's id, as Databricks does: a name that was deleted and given again
is another endpoint. A change is answered when gateways have been told of it (``endpoint_changes``).
"""

from dataclasses import dataclass

import structlog

from servery_common.contracts.access import Identity
from servery_common.errors import NotFound
from servery_common.postgres.pool import Connection, Pool
from servery_controller.domain.permissions import (
    Grants,
    PermissionLevel,
    check_still_manages,
    describe,
    require,
)
from servery_controller.endpoints import endpoint_grants, store
from servery_controller.endpoints.endpoint_changes import EndpointChanges

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class EndpointPermissions:
    """The direct grants on one endpoint."""

    endpoint_id: str
    grants: Grants


class PermissionService:
    """The use cases."""

    def __init__(self, pool: Pool, changes: EndpointChanges) -> None:
        self._pool = pool
        self._changes = changes

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
        async with self._pool.acquire() as conn, conn.transaction():
            # The permission first: who has none learns nothing about who exists.
            await self._load(conn, endpoint_id, caller, PermissionLevel.CAN_MANAGE, lock=True)
            if not keep:
                await endpoint_grants.clear(conn, endpoint_id)
            for grantee, level in wanted.items():
                if not await endpoint_grants.put(conn, endpoint_id, grantee, level):
                    raise NotFound(f"{describe(grantee)} does not exist in this workspace.")
            after = (await endpoint_grants.load(conn, [endpoint_id]))[endpoint_id]
            check_still_manages(caller, after)
            generation = await store.touch_endpoint(conn, endpoint_id)
        await self._changes.published({endpoint_id: generation})
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
