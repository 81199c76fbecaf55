"""The principals and groups that every installation has: its administrator and the groups of every workspace."""

from servery_controller.domain.permissions import ADMINS, Grantee

USERS = Grantee("group", "users")
"""Everybody of a workspace."""


class BootstrapDirectory:
    """Knows these and nobody else. See ``permission_service.Directory``."""

    def __init__(self, admin_user: str, workspace_id: str) -> None:
        self._admin = Grantee("user", admin_user)
        self._workspace_id = workspace_id

    async def find(self, workspace_id: str, grantee: Grantee) -> Grantee | None:
        """Return the grantee if it is one of them."""
        if grantee == self._admin and workspace_id == self._workspace_id:
            return grantee
        return grantee if grantee in (ADMINS, USERS) else None
