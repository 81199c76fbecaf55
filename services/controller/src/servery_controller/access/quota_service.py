"""The use cases of quotas: operators set them, everybody may read those of their own workspace."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import structlog

from servery_common.contracts.access import Identity
from servery_common.contracts.quotas import MAX_QPS
from servery_common.errors import InvalidParameter, NotFound
from servery_common.postgres.pool import Pool
from servery_controller.access import quota_store
from servery_controller.access.authority import require_operator
from servery_controller.access.publisher import AccessPublisher
from servery_controller.access.quota_store import Quota
from servery_controller.domain.sizes import SLOTS_PER_REPLICA

log = structlog.get_logger(__name__)

MAX_COMPUTE_SLOTS = 1_000_000

QuotaName = Literal["qps", "compute_slots"]
QUOTA_NAMES: tuple[QuotaName, ...] = ("qps", "compute_slots")


@dataclass(frozen=True, slots=True)
class ChosenQuotas:
    """What is to change: a value by the quota's name, None for the default."""

    values: Mapping[QuotaName, int | None]

    def check(self) -> None:
        """Raise InvalidParameter for values that are out of range."""
        qps, slots = self.values.get("qps"), self.values.get("compute_slots")
        if qps is not None and not 1 <= qps <= MAX_QPS:
            raise InvalidParameter(
                f"qps must be a whole number from 1 to {MAX_QPS:,}: the scoring requests per second that the workspace "
                "may send. To let an endpoint answer nothing, stop the endpoint or set its rate limit to 0."
            )
        if slots is not None and not 0 <= slots <= MAX_COMPUTE_SLOTS:
            raise InvalidParameter(
                f"compute_slots must be a whole number from 0 to {MAX_COMPUTE_SLOTS:,}: the slots that the workspace's "
                f"replicas may take together. A replica takes {SLOTS_PER_REPLICA}."
            )


class QuotaService:
    """Reads and changes how many requests a second a workspace may send, and how many slots its replicas may take."""

    def __init__(self, pool: Pool, publisher: AccessPublisher) -> None:
        self._pool = pool
        self._publisher = publisher

    async def list(self, caller: Identity) -> list[Quota]:
        """Return the quotas of all workspaces, by the workspace's name."""
        require_operator(caller)
        return await quota_store.find_quotas(self._pool)

    async def get(self, caller: Identity, workspace_id: str) -> Quota:
        """Return the quotas of a workspace. Raises NotFound."""
        if workspace_id != caller.workspace_id:
            require_operator(caller)
        return await self._find(workspace_id)

    async def set(self, caller: Identity, workspace_id: str, chosen: ChosenQuotas) -> Quota:
        """Choose quotas. Gateways were told of the one for requests when this returns.

        That of compute holds for replicas that are placed from now on; what runs goes on. Raises InvalidParameter,
        NotFound.
        """
        require_operator(caller)
        chosen.check()
        setters = {"qps": quota_store.set_qps, "compute_slots": quota_store.set_compute_slots}
        async with self._pool.acquire() as conn, conn.transaction():
            for name, value in chosen.values.items():
                if not await setters[name](conn, workspace_id, value):
                    raise _unknown(workspace_id)
        log.info("quota_set", workspace_id=workspace_id, **chosen.values, by=caller.user_name)
        if "qps" in chosen.values:
            await self._publisher.quota_changed(workspace_id)
        return await self._find(workspace_id)

    async def _find(self, workspace_id: str) -> Quota:
        found = await quota_store.find_quotas(self._pool, workspace_id)
        if not found:
            raise _unknown(workspace_id)
        return found[0]


def _unknown(workspace_id: str) -> NotFound:
    return NotFound(f"Workspace with id '{workspace_id[:100]}' does not exist.")
