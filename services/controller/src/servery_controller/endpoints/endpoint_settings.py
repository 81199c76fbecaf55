"""Use cases of what an endpoint is given beside its config: tags, rate limits, recipients of notifications.

Each is one transaction. None of them touches a config: what serves goes on serving.
"""

from collections.abc import Callable, Sequence

from servery_common.contracts.access import Identity
from servery_common.contracts.routes import RateLimit
from servery_common.postgres.pool import Pool
from servery_controller.domain.endpoint import EmailNotifications
from servery_controller.domain.permissions import PermissionLevel
from servery_controller.domain.settings_rules import (
    Tags,
    check_email_notifications,
    check_rate_limits,
    merge_tags,
)
from servery_controller.endpoints import endpoint_access, settings_store, store


class EndpointSettings:
    """The use cases; ``hint`` wakes the reconciler for one endpoint id."""

    def __init__(self, pool: Pool, hint: Callable[[str], None]) -> None:
        self._pool = pool
        self._hint = hint

    async def change_tags(
        self, name: str, add: Sequence[tuple[str, str]], delete: Sequence[str], caller: Identity
    ) -> Tags:
        """Add (or overwrite) and delete tags; return all that are there now. Raises NotFound, InvalidParameter."""
        async with self._pool.acquire() as conn, conn.transaction():
            deployment = await endpoint_access.locked(conn, name, caller, PermissionLevel.CAN_MANAGE)
            tags = merge_tags(deployment.endpoint.tags, add, delete)
            await settings_store.set_tags(conn, deployment.endpoint.id, tags)
            await store.touch_endpoint(conn, deployment.endpoint.id)
        return tags

    async def set_rate_limits(
        self, name: str, limits: Sequence[RateLimit], caller: Identity
    ) -> tuple[RateLimit, ...]:
        """Replace the rate limits; gateways are told at once. Raises NotFound, InvalidParameter."""
        checked = check_rate_limits(limits)
        async with self._pool.acquire() as conn, conn.transaction():
            deployment = await endpoint_access.locked(conn, name, caller, PermissionLevel.CAN_MANAGE)
            await settings_store.set_rate_limits(conn, deployment.endpoint.id, checked)
            await store.touch_endpoint(conn, deployment.endpoint.id)
        self._hint(deployment.endpoint.id)
        return checked

    async def set_email_notifications(
        self, name: str, wanted: EmailNotifications, caller: Identity
    ) -> EmailNotifications:
        """Replace who is told how updates end. Raises NotFound, InvalidParameter."""
        checked = check_email_notifications(wanted)
        async with self._pool.acquire() as conn, conn.transaction():
            deployment = await endpoint_access.locked(conn, name, caller, PermissionLevel.CAN_MANAGE)
            await settings_store.set_email_notifications(conn, deployment.endpoint.id, checked)
            await store.touch_endpoint(conn, deployment.endpoint.id)
        return checked
