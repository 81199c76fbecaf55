"""Use cases of what an endpoint is given beside its config: tags, rate limits, recipients of notifications.

Each is one transaction. None of them touches a config: what serves goes on serving.
"""

from collections.abc import Sequence

from servery_common.contracts.access import Identity
from servery_common.contracts.routes import RateLimit
from servery_common.postgres.pool import Pool
from servery_controller.domain.endpoint import Deployment, EmailNotifications
from servery_controller.domain.endpoint_options import check_shadow_names, options_of
from servery_controller.domain.permissions import PermissionLevel
from servery_controller.domain.settings_rules import (
    Tags,
    check_email_notifications,
    check_rate_limits,
    merge_tags,
)
from servery_controller.endpoints import endpoint_access, settings_store, store
from servery_controller.endpoints.endpoint_changes import EndpointChanges


class EndpointSettings:
    """The use cases."""

    def __init__(self, pool: Pool, changes: EndpointChanges) -> None:
        self._pool = pool
        self._changes = changes

    async def change_tags(
        self, name: str, add: Sequence[tuple[str, str]], delete: Sequence[str], caller: Identity
    ) -> Tags:
        """Add (or overwrite) and delete tags; return all that are there now. Raises NotFound, InvalidParameter.

        Of Servery's options among them gateways and the scaler were told when this returns.
        """
        async with self._pool.acquire() as conn, conn.transaction():
            deployment = await endpoint_access.locked(conn, name, caller, PermissionLevel.CAN_MANAGE)
            tags = merge_tags(deployment.endpoint.tags, add, delete)
            check_shadow_names(add, _served_names(deployment))
            await settings_store.set_tags(conn, deployment.endpoint.id, tags)
            generation = await store.touch_endpoint(conn, deployment.endpoint.id)
        if options_of(tags) != options_of(deployment.endpoint.tags):
            await self._changes.published({deployment.endpoint.id: generation})
        return tags

    async def set_rate_limits(
        self, name: str, limits: Sequence[RateLimit], caller: Identity
    ) -> tuple[RateLimit, ...]:
        """Replace the rate limits; gateways were told when this returns. Raises NotFound, InvalidParameter."""
        checked = check_rate_limits(limits)
        async with self._pool.acquire() as conn, conn.transaction():
            deployment = await endpoint_access.locked(conn, name, caller, PermissionLevel.CAN_MANAGE)
            await settings_store.set_rate_limits(conn, deployment.endpoint.id, checked)
            generation = await store.touch_endpoint(conn, deployment.endpoint.id)
        await self._changes.published({deployment.endpoint.id: generation})
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


def _served_names(deployment: Deployment) -> list[str]:
    """Names of the served entities that serve or are to."""
    shown = [config for config in (deployment.active, deployment.newest) if config is not None]
    return [e.spec.name for config in shown for e in deployment.entities_of(config.version)]
