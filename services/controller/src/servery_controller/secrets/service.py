"""Use cases of the secrets API: scopes, secrets, grants. One transaction each; no value in any log or error."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import structlog

from servery_common.contracts.access import Identity
from servery_common.errors import BadRequest, InvalidParameter, NotFound
from servery_common.postgres.pool import Connection, Pool
from servery_controller.domain.directory import USERS
from servery_controller.domain.permissions import Grantee
from servery_controller.domain.secrets import (
    MAX_SCOPES,
    MAX_SECRETS,
    SecretPermission,
    check_key,
    check_scope_name,
    check_value,
    is_allowed,
)
from servery_controller.secrets import store
from servery_controller.secrets.store import SecretKey
from servery_controller.secrets.vault import Vault, authorise, no_such_scope, no_such_secret

log = structlog.get_logger()


class SecretService:
    """The use cases. Each acts in the caller's workspace and raises NotFound and PermissionDenied."""

    def __init__(self, pool: Pool, vault: Vault) -> None:
        self._pool = pool
        self._vault = vault

    async def create_scope(self, scope: str, initial_manage_principal: str | None, caller: Identity) -> None:
        """Add a scope that its creator, or everyone, may manage. Raises AlreadyExists, InvalidParameter, BadRequest."""
        check_scope_name(scope)
        if initial_manage_principal not in (None, "", USERS):
            raise InvalidParameter(
                f"initial_manage_principal must be '{USERS}' or absent. Grant others a permission with "
                "/api/2.0/secrets/acls/put once the scope exists."
            )
        workspace_id = caller.workspace_id
        async with self._pool.acquire() as conn, conn.transaction():
            if await store.count_scopes(conn, workspace_id) >= MAX_SCOPES:
                raise BadRequest(
                    f"The workspace has {MAX_SCOPES} secret scopes, the most allowed. Delete one first."
                )
            await store.insert_scope(conn, workspace_id, scope)
            manager = Grantee("group", USERS) if initial_manage_principal else Grantee.of(caller)
            if not await store.put_grant(conn, workspace_id, scope, manager, SecretPermission.MANAGE):
                raise NotFound(f"'{manager.name}' was deleted a moment ago.")
        _log("secret_scope_created", caller, scope)

    async def delete_scope(self, scope: str, caller: Identity) -> None:
        """Remove a scope with everything in it."""
        async with self._changing(scope, caller, SecretPermission.MANAGE) as conn:
            await store.delete_scope(conn, caller.workspace_id, scope)
        _log("secret_scope_deleted", caller, scope)

    async def scopes(self, caller: Identity) -> list[str]:
        """Names of the scopes the caller may read."""
        found = await store.all_granted(self._pool, caller.workspace_id)
        return [name for name, granted in found.items() if is_allowed(caller, granted, SecretPermission.READ)]

    async def put(self, scope: str, key: str, value: bytes, caller: Identity) -> None:
        """Store a secret in place of the one before. Raises InvalidParameter, BadRequest."""
        check_key(key)
        check_value(value)
        sealed = self._vault.seal(caller.workspace_id, scope, key, value)
        async with self._changing(scope, caller, SecretPermission.WRITE) as conn:
            if await store.count_other_secrets(conn, caller.workspace_id, scope, key) >= MAX_SECRETS:
                raise BadRequest(
                    f"Scope '{scope}' has {MAX_SECRETS} secrets, the most allowed. Delete one first."
                )
            await store.put_secret(conn, caller.workspace_id, scope, key, sealed)
        _log("secret_put", caller, scope, key=key)

    async def delete(self, scope: str, key: str, caller: Identity) -> None:
        """Remove a secret."""
        async with self._changing(scope, caller, SecretPermission.WRITE) as conn:
            if not await store.delete_secret(conn, caller.workspace_id, scope, key):
                raise no_such_secret(scope, key)
        _log("secret_deleted", caller, scope, key=key)

    async def get(self, scope: str, key: str, caller: Identity) -> bytes:
        """Return a value. Raises InvalidState when it cannot be decrypted."""
        value = await self._vault.read(scope, key, caller)
        _log("secret_read", caller, scope, key=key)
        return value

    async def keys(self, scope: str, caller: Identity) -> list[SecretKey]:
        """The secrets of a scope, without their values."""
        await authorise(self._pool, scope, caller, SecretPermission.READ)
        return await store.list_secrets(self._pool, caller.workspace_id, scope)

    async def put_acl(
        self, scope: str, principal: str, permission: SecretPermission, caller: Identity
    ) -> None:
        """Grant a permission in place of the one before. Raises InvalidParameter for a principal nobody knows."""
        async with self._changing(scope, caller, SecretPermission.MANAGE) as conn:
            grantee = await store.find_grantee(conn, caller.workspace_id, principal)
            if grantee is None or not await store.put_grant(
                conn, caller.workspace_id, scope, grantee, permission
            ):
                raise InvalidParameter(
                    f"There is no user, group or service principal '{principal}' in the workspace. Give a user's or "
                    "group's name, or a service principal's application id."
                )
        _log("secret_acl_put", caller, scope, principal=grantee.name, permission=permission)

    async def delete_acl(self, scope: str, principal: str, caller: Identity) -> None:
        """Take back what was granted to a principal."""
        async with self._changing(scope, caller, SecretPermission.MANAGE) as conn:
            grantee = await store.find_grantee(conn, caller.workspace_id, principal)
            if grantee is None or not await store.delete_grant(conn, caller.workspace_id, scope, grantee):
                raise _no_such_acl(scope, principal)
        _log("secret_acl_deleted", caller, scope, principal=grantee.name)

    async def acl(self, scope: str, principal: str, caller: Identity) -> tuple[str, SecretPermission]:
        """The principal in its own spelling, and what was granted to it."""
        granted = await self._granted(scope, caller)
        grantee = await store.find_grantee(self._pool, caller.workspace_id, principal)
        if grantee is None or str(grantee) not in granted:
            raise _no_such_acl(scope, principal)
        return grantee.name, granted[str(grantee)]

    async def acls(self, scope: str, caller: Identity) -> list[tuple[str, SecretPermission]]:
        """What was granted on a scope, by principal."""
        granted = await self._granted(scope, caller)
        return [(grantee.partition(":")[2], permission) for grantee, permission in granted.items()]

    async def _granted(self, scope: str, caller: Identity) -> dict[str, SecretPermission]:
        await authorise(self._pool, scope, caller, SecretPermission.MANAGE)
        return await store.granted(self._pool, caller.workspace_id, scope) or {}

    @asynccontextmanager
    async def _changing(
        self, scope: str, caller: Identity, wanted: SecretPermission
    ) -> AsyncGenerator[Connection]:
        """A transaction in which nobody else changes the scope, after the caller's permission was checked."""
        async with self._pool.acquire() as conn, conn.transaction():
            if not await store.lock_scope(conn, caller.workspace_id, scope):
                raise no_such_scope(scope)
            await authorise(conn, scope, caller, wanted)
            yield conn


def _no_such_acl(scope: str, principal: str) -> NotFound:
    return NotFound(f"No ACL for principal '{principal}' exists on scope '{scope}'.")


def _log(event: str, caller: Identity, scope: str, **fields: str) -> None:
    # Who did what to which name; Databricks calls names of scopes and keys non-sensitive.
    log.info(event, workspace_id=caller.workspace_id, user=caller.user_name, scope=scope, **fields)
