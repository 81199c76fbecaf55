"""All SQL about quotas of workspaces."""

from dataclasses import dataclass

from servery_common.contracts.quotas import DEFAULT_QPS, WorkspaceQuota
from servery_common.postgres.pool import Connection, Pool


@dataclass(frozen=True, slots=True)
class Quota:
    """What a workspace may send, and what its replicas may take."""

    workspace_id: str
    workspace_name: str
    chosen_qps: int | None
    """None: nobody chose another one than the default."""
    chosen_compute_slots: int | None = None
    """None: nobody chose another one than the installation's setting."""

    @property
    def qps(self) -> int:
        """Scoring requests a second."""
        return DEFAULT_QPS if self.chosen_qps is None else self.chosen_qps


async def find_quotas(conn: Connection | Pool, workspace_id: str | None = None) -> list[Quota]:
    """Return the quotas of all workspaces, by name, or of the one with this id."""
    rows = await conn.fetch(
        """SELECT id AS workspace_id, name AS workspace_name, quota_qps AS chosen_qps,
                  quota_compute_slots AS chosen_compute_slots
           FROM workspaces WHERE $1::text IS NULL OR id = $1 ORDER BY name""",
        workspace_id,
    )
    return [Quota(**row) for row in rows]


async def set_qps(conn: Connection | Pool, workspace_id: str, qps: int | None) -> bool:
    """Choose a quota of requests, or the default with None. Returns False when there is no such workspace."""
    status = await conn.execute("UPDATE workspaces SET quota_qps = $2 WHERE id = $1", workspace_id, qps)
    return status == "UPDATE 1"


async def set_compute_slots(conn: Connection | Pool, workspace_id: str, slots: int | None) -> bool:
    """Choose a quota of slots, or the default with None. Returns False when there is no such workspace."""
    status = await conn.execute(
        "UPDATE workspaces SET quota_compute_slots = $2 WHERE id = $1", workspace_id, slots
    )
    return status == "UPDATE 1"


async def published_quotas(
    conn: Connection | Pool, workspace_id: str | None = None
) -> dict[str, WorkspaceQuota]:
    """Return what gateways are told, by workspace id. The default, too: then a key goes only with its workspace.

    One that went and came again could not be put by a controller that has started since: it would not know the
    revision of the delete marker.
    """
    return {
        quota.workspace_id: WorkspaceQuota(workspace_id=quota.workspace_id, qps=quota.qps)
        for quota in await find_quotas(conn, workspace_id)
    }
