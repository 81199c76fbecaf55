"""The use cases of quotas: operators set them, everybody may read that of their own workspace."""

import structlog

from servery_common.contracts.access import Identity
from servery_common.contracts.quotas import MAX_QPS
from servery_common.errors import InvalidParameter, NotFound
from servery_common.postgres.pool import Pool
from servery_controller.access import quota_store
from servery_controller.access.authority import require_operator
from servery_controller.access.publisher import AccessPublisher
from servery_controller.access.quota_store import Quota

log = structlog.get_logger(__name__)


class QuotaService:
    """Reads and changes how many scoring requests a second a workspace may send."""

    def __init__(self, pool: Pool, publisher: AccessPublisher) -> None:
        self._pool = pool
        self._publisher = publisher

    async def list(self, caller: Identity) -> list[Quota]:
        """Return the quotas of all workspaces, by the workspace's name."""
        require_operator(caller)
        return await quota_store.find_quotas(self._pool)

    async def get(self, caller: Identity, workspace_id: str) -> Quota:
        """Return the quota of a workspace. Raises NotFound."""
        if workspace_id != caller.workspace_id:
            require_operator(caller)
        return await self._find(workspace_id)

    async def set(self, caller: Identity, workspace_id: str, qps: int | None) -> Quota:
        """Choose a quota, or the default with None. Gateways were told of it when this returns.

        Raises InvalidParameter, NotFound.
        """
        require_operator(caller)
        if qps is not None and not 1 <= qps <= MAX_QPS:
            raise InvalidParameter(
                f"qps must be a whole number from 1 to {MAX_QPS:,}: the scoring requests per second that the workspace "
                "may send. To let an endpoint answer nothing, stop the endpoint or set its rate limit to 0."
            )
        if not await quota_store.set_quota(self._pool, workspace_id, qps):
            raise _unknown(workspace_id)
        log.info("quota_set", workspace_id=workspace_id, qps=qps, by=caller.user_name)
        await self._publisher.quota_changed(workspace_id)
        return await self._find(workspace_id)

    async def _find(self, workspace_id: str) -> Quota:
        found = await quota_store.find_quotas(self._pool, workspace_id)
        if not found:
            raise _unknown(workspace_id)
        return found[0]


def _unknown(workspace_id: str) -> NotFound:
    return NotFound(f"Workspace with id '{workspace_id[:100]}' does not exist.")
