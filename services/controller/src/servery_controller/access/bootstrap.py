"""The first workspace and its administrator, whom the settings name: made anew at each start.

So whoever can set the controller's environment can always get in, whatever became of the directory.
"""

import structlog

from servery_common.access_tokens import fingerprint
from servery_common.errors import AlreadyExists
from servery_common.postgres.advisory_locks import AdvisoryLock, hold
from servery_common.postgres.pool import Connection, Pool
from servery_controller.access import credential_store, directory_store
from servery_controller.domain.directory import ADMINS, USERS

log = structlog.get_logger(__name__)

BOOTSTRAP_PRINCIPAL = "0" * 32


async def ensure_bootstrap(pool: Pool, *, token: str, user_name: str, workspace_id: str) -> None:
    """Make the operator exist, administer the workspace and have this token, and no other one from the settings.

    Raises AlreadyExists when another principal of the workspace has the name.
    """
    async with pool.acquire() as conn, conn.transaction():
        await hold(conn, AdvisoryLock.BOOTSTRAP)  # several controllers start
        if not await directory_store.find_workspaces(conn, workspace_id):
            await directory_store.insert_workspace(conn, workspace_id, f"workspace-{workspace_id}", "")
        number = await _ensure_principal(conn, user_name, workspace_id)
        for name in (ADMINS, USERS):
            group = await directory_store.find_group(conn, workspace_id, name)
            await directory_store.add_members(conn, group.number, principals=[number])
        await _adopt_served_entities(conn, user_name, workspace_id)
        await credential_store.replace_bootstrap_token(conn, fingerprint(token.encode()), BOOTSTRAP_PRINCIPAL)


async def _ensure_principal(conn: Connection, user_name: str, workspace_id: str) -> int:
    other = await directory_store.find_principal(conn, workspace_id, user_name)
    if other is not None and other.id != BOOTSTRAP_PRINCIPAL:
        raise AlreadyExists(
            f"SERVERY_ADMIN_USER is '{user_name}', but workspace {workspace_id} has another user of this name. "
            "Choose another name for the administrator of the settings."
        )
    # Memberships belong to the workspace it had before.
    await conn.execute(
        """DELETE FROM memberships m USING principals p
           WHERE p.id = $1 AND p.workspace_id <> $2 AND m.principal_number = p.number""",
        BOOTSTRAP_PRINCIPAL,
        workspace_id,
    )
    number: int | None = await conn.fetchval(
        """INSERT INTO principals (id, workspace_id, kind, name, operator) VALUES ($1, $2, 'user', $3, true)
           ON CONFLICT (id) DO UPDATE
           SET workspace_id = $2, name = $3, active = true, operator = true
           RETURNING number""",
        BOOTSTRAP_PRINCIPAL,
        workspace_id,
        user_name,
    )
    assert number is not None
    return number


async def _adopt_served_entities(conn: Connection, user_name: str, workspace_id: str) -> None:
    """Let models that the administrator had served before there were principals act as them, as those do since."""
    await conn.execute(
        """UPDATE served_entities s SET creator_id = $1 FROM endpoints e
           WHERE e.id = s.endpoint_id AND e.workspace_id = $2 AND s.creator = $3 AND s.creator_id IS NULL""",
        BOOTSTRAP_PRINCIPAL,
        workspace_id,
        user_name,
    )
