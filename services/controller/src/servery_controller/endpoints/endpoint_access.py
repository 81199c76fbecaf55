"""The way every use case gets at an endpoint: by its name, in the caller's workspace, with a permission.

An endpoint of another workspace does not exist. One of the caller's own is no secret: without permission they are
told what they lack.
"""

from servery_common.contracts.access import Identity
from servery_common.errors import NotFound
from servery_common.postgres.pool import Connection, Pool
from servery_controller.domain.endpoint import Deployment
from servery_controller.domain.permissions import PermissionLevel, require
from servery_controller.endpoints import endpoint_grants, store


async def find(conn: Connection | Pool, name: str, caller: Identity, level: PermissionLevel) -> str:
    """Return the id of a live endpoint. Raises NotFound, or PermissionDenied without ``level`` on it."""
    endpoint_id = await store.find_endpoint(conn, caller.workspace_id, name)
    if endpoint_id is None:
        raise no_such_endpoint(name)
    grants = await endpoint_grants.load(conn, [endpoint_id])
    require(caller, level, grants[endpoint_id], name)
    return endpoint_id


async def locked(conn: Connection, name: str, caller: Identity, level: PermissionLevel) -> Deployment:
    """Return a live endpoint that nobody else changes until the transaction ends. Raises as ``find``."""
    endpoint_id = await store.lock_endpoint(conn, caller.workspace_id, name)
    if endpoint_id is None:
        raise no_such_endpoint(name)
    deployment = (await store.load_deployments(conn, [endpoint_id]))[endpoint_id]
    require(caller, level, deployment.grants, name)
    return deployment


def no_such_endpoint(name: str) -> NotFound:
    """The error for a name without an endpoint in the caller's workspace."""
    return NotFound(f"Endpoint with name '{name}' does not exist.")
