"""The SQL of what an endpoint is given beside its config. The caller holds the endpoint's row."""

from dataclasses import asdict

from servery_common.contracts.routes import RateLimit
from servery_common.postgres.pool import Connection
from servery_controller.domain.endpoint import EmailNotifications
from servery_controller.domain.settings_rules import Tags


async def hold_workspace(conn: Connection, workspace_id: str) -> bool:
    """Whether the workspace exists; if so nobody else creates endpoints in it, or deletes it, until the
    transaction ends.
    """
    found = await conn.fetchval("SELECT true FROM workspaces WHERE id = $1 FOR NO KEY UPDATE", workspace_id)
    return bool(found)


async def count_live_endpoints(conn: Connection, workspace_id: str) -> int:
    """How many live endpoints the workspace has."""
    count: int | None = await conn.fetchval(
        "SELECT count(*) FROM endpoints WHERE workspace_id = $1 AND deleted_at IS NULL", workspace_id
    )
    return count or 0


async def set_tags(conn: Connection, endpoint_id: str, tags: Tags) -> None:
    """Replace the tags."""
    await conn.execute(
        "UPDATE endpoints SET tags = $2 WHERE id = $1", endpoint_id, [list(tag) for tag in tags]
    )


async def set_rate_limits(conn: Connection, endpoint_id: str, limits: tuple[RateLimit, ...]) -> None:
    """Replace the rate limits."""
    await conn.execute(
        "UPDATE endpoints SET rate_limits = $2 WHERE id = $1", endpoint_id, [x.model_dump() for x in limits]
    )


async def set_email_notifications(conn: Connection, endpoint_id: str, wanted: EmailNotifications) -> None:
    """Replace the recipients."""
    await conn.execute(
        "UPDATE endpoints SET email_notifications = $2 WHERE id = $1", endpoint_id, asdict(wanted)
    )
