"""``/api/2.0/servery/workspaces``: for operators of the installation. Servery's own API."""

from typing import Any

from fastapi import APIRouter

from servery_controller.access.workspace_service import WorkspaceService
from servery_controller.api.body import Body, Text
from servery_controller.api.callers import Caller
from servery_controller.api.tokens import created_token
from servery_controller.domain.directory import Workspace


class CreateWorkspaceInput(Body):
    """The body of a creation."""

    name: Text
    admin_user: Text
    region: Text | None = None


def workspaces_router(workspaces: WorkspaceService) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/api/2.0/servery/workspaces", tags=["workspaces"])

    @router.post("")
    async def create_workspace(body: CreateWorkspaceInput, caller: Caller) -> dict[str, Any]:
        """Make a workspace with its first administrator, whose token is shown this once."""
        made = await workspaces.create(caller, body.name, body.region or "", body.admin_user)
        return _shown(made.workspace) | {"admin_user": made.admin.name} | created_token(made.token)

    @router.get("")
    async def list_workspaces(caller: Caller) -> dict[str, Any]:
        """All workspaces."""
        return {"workspaces": [_shown(workspace) for workspace in await workspaces.list(caller)]}

    @router.get("/{workspace_id}")
    async def get_workspace(workspace_id: str, caller: Caller) -> dict[str, Any]:
        """One workspace."""
        return _shown(await workspaces.get(caller, workspace_id))

    @router.delete("/{workspace_id}")
    async def delete_workspace(workspace_id: str, caller: Caller) -> dict[str, Any]:
        """Remove a workspace that has no endpoints, with everybody in it."""
        await workspaces.delete(caller, workspace_id)
        return {}

    return router


def _shown(workspace: Workspace) -> dict[str, Any]:
    return {
        "workspace_id": workspace.id,
        "name": workspace.name,
        "region": workspace.region,
        "creation_timestamp": int(workspace.created_at.timestamp() * 1000),
    }
