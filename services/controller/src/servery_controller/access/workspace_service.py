"""The use cases of workspaces, for operators of the installation."""

import secrets
from dataclasses import dataclass
from uuid import uuid4

import structlog

from servery_common.contracts.access import Identity
from servery_common.errors import InvalidParameter, NotFound
from servery_common.postgres.pool import Connection, Pool
from servery_controller.access import credential_store, directory_store
from servery_controller.access.authority import require_operator
from servery_controller.access.publisher import AccessPublisher
from servery_controller.access.token_service import NewToken, TokenService
from servery_controller.domain.directory import ADMINS, Principal, Workspace, check_name
from servery_controller.secrets import store as secret_store

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NewWorkspace:
    """A workspace with its first administrator and, this one time, their token."""

    workspace: Workspace
    admin: Principal
    token: NewToken


class WorkspaceService:
    """Makes, lists and removes workspaces."""

    def __init__(self, pool: Pool, publisher: AccessPublisher, tokens: TokenService, own_id: str) -> None:
        self._pool = pool
        self._publisher = publisher
        self._tokens = tokens
        self._own_id = own_id

    async def create(self, caller: Identity, name: str, region: str, admin_user: str) -> NewWorkspace:
        """Make a workspace. Raises AlreadyExists, InvalidParameter."""
        require_operator(caller)
        name, admin_user = check_name("name", name), check_name("admin_user", admin_user)
        # 16 digits, as clients expect, and exact in a JavaScript number.
        workspace_id = str(10**15 + secrets.randbelow(8 * 10**15))
        async with self._pool.acquire() as conn, conn.transaction():
            await directory_store.insert_workspace(conn, workspace_id, name, region.strip())
            admin = await add_admin(conn, workspace_id, admin_user)
            [workspace] = await directory_store.find_workspaces(conn, workspace_id)
        log.info("workspace_created", workspace_id=workspace_id, name=name, by=caller.user_name)
        log.info("principal_created", principal=admin_user, kind="user", by=caller.user_name)
        await self._publisher.workspace_changed(workspace_id)
        token = await self._tokens.create_for_user(caller, workspace_id, admin.id)
        return NewWorkspace(workspace, admin, token)

    async def list(self, caller: Identity) -> list[Workspace]:
        """Return all workspaces, by name."""
        require_operator(caller)
        return await directory_store.find_workspaces(self._pool)

    async def get(self, caller: Identity, workspace_id: str) -> Workspace:
        """Return one workspace. Raises NotFound."""
        require_operator(caller)
        found = await directory_store.find_workspaces(self._pool, workspace_id)
        if not found:
            raise NotFound(f"Workspace with id '{workspace_id[:100]}' does not exist.")
        return found[0]

    async def delete(self, caller: Identity, workspace_id: str) -> None:
        """Remove a workspace without endpoints, with everybody and all secrets in it.

        Raises NotFound, InvalidParameter.
        """
        workspace = await self.get(caller, workspace_id)
        if workspace_id == self._own_id:
            raise InvalidParameter(f"'{workspace.name}' is the workspace of the installation's operator.")
        async with self._pool.acquire() as conn, conn.transaction():
            await directory_store.lock_workspace(conn, workspace_id)
            endpoints = await directory_store.count_remaining_endpoints(conn, workspace_id)
            if endpoints:
                raise InvalidParameter(
                    f"Workspace '{workspace.name}' has {endpoints} endpoints. Delete them and wait until they are "
                    "gone, then delete the workspace."
                )
            principals = await directory_store.principal_ids(conn, workspace_id)
            tokens = [h for p in principals for h in await credential_store.token_hashes(conn, p)]
            await secret_store.delete_scopes(conn, workspace_id)
            await directory_store.delete_workspace(conn, workspace_id)
        await self._publisher.workspace_changed(workspace_id, gone_tokens=tokens, gone_principals=principals)
        log.info("workspace_deleted", workspace_id=workspace_id, by=caller.user_name)


async def add_admin(conn: Connection, workspace_id: str, name: str) -> Principal:
    """Add a user who administers the workspace."""
    admin = await directory_store.insert_principal(conn, uuid4().hex, workspace_id, "user", name, "")
    admins = await directory_store.find_group(conn, workspace_id, ADMINS)
    await directory_store.add_members(conn, admins.number, principals=[admin.number])
    return admin
