"""Whether a caller may do what they ask, going by Postgres: the gateway may not have heard of a change yet."""

from servery_common.contracts.access import Identity
from servery_common.errors import BadRequest, PermissionDenied, Unauthenticated
from servery_common.postgres.pool import Pool
from servery_controller.access.identity_store import Identities


class Authority:
    """Checks every management call again, with one indexed read."""

    def __init__(self, pool: Pool, identities: Identities) -> None:
        self._pool = pool
        self._identities = identities

    async def confirm(self, claimed: Identity) -> Identity:
        """Return the caller as Postgres knows them. Raises Unauthenticated when they were removed meanwhile."""
        identity = await self._identities.find(self._pool, claimed.principal_id)
        if identity is None:
            raise Unauthenticated(
                "Your user or service principal was deleted or deactivated. Ask an administrator of the workspace."
            )
        return identity

    async def find(self, workspace_id: str, principal_id: str) -> Identity | None:
        """Return a user or service principal; None when it is no active member of the workspace."""
        identity = await self._identities.find(self._pool, principal_id)
        return identity if identity and identity.workspace_id == workspace_id else None


def require_admin(caller: Identity) -> None:
    """Raise PermissionDenied unless the caller administers their workspace."""
    if not caller.admin:
        raise PermissionDenied(
            f"Only administrators of the workspace may do this, and '{caller.user_name}' is not one. "
            "Ask one of them to add you to the group 'admins'."
        )


def require_operator(caller: Identity) -> None:
    """Raise PermissionDenied unless the caller operates the installation."""
    if not caller.operator:
        raise PermissionDenied(
            f"Only operators of the installation may manage workspaces, and '{caller.user_name}' is not one."
        )


def require_supported(caller: Identity) -> None:
    """Raise BadRequest when models of the caller's workspace are not served here."""
    if not caller.supported:
        raise BadRequest(
            "Your workspace is not currently supported. Its region is not among those this installation serves; "
            "ask the operator, who sets SERVERY_SERVED_REGIONS."
        )
