"""``/api/2.0/servery/quotas`` and ``…/workspaces/{id}/quota``: what workspaces may send and run. Servery's own API."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from servery_common.contracts.quotas import DEFAULT_QPS
from servery_common.errors import InvalidParameter
from servery_controller.access.quota_service import QUOTA_NAMES, ChosenQuotas, QuotaName, QuotaService
from servery_controller.access.quota_store import Quota
from servery_controller.api.body import Body, Whole
from servery_controller.api.callers import Caller


class QuotaInput(Body):
    """The body of a change: what it leaves out stays."""

    qps: Whole | None = None
    compute_slots: Whole | None = None

    def chosen(self) -> ChosenQuotas:
        """Return what is to change. Raises InvalidParameter when that is nothing."""
        given: dict[QuotaName, int | None] = {"qps": self.qps, "compute_slots": self.compute_slots}
        chosen: dict[QuotaName, int | None] = {
            name: given[name] for name in QUOTA_NAMES if name in self.model_fields_set
        }
        if not chosen or None in chosen.values():
            raise InvalidParameter(
                "Give qps, compute_slots, or both, as whole numbers. DELETE …/quota chooses the defaults again."
            )
        return ChosenQuotas(chosen)


def quotas_router(quotas: QuotaService, default_compute_slots: int | None) -> APIRouter:
    """The routes. ``default_compute_slots`` is the installation's; None: no limit."""
    router = APIRouter(prefix="/api/2.0/servery", tags=["quotas"])

    def shown(quota: Quota) -> dict[str, Any]:
        chosen = quota.chosen_compute_slots
        return {
            "workspace_id": quota.workspace_id,
            "workspace_name": quota.workspace_name,
            "qps": quota.qps,
            "default_qps": DEFAULT_QPS,
            # Null: no limit.
            "compute_slots": default_compute_slots if chosen is None else chosen,
            "default_compute_slots": default_compute_slots,
        }

    @router.get("/quotas")
    async def list_quotas(caller: Caller) -> dict[str, Any]:
        """The quotas of all workspaces. For operators."""
        return {"quotas": [shown(quota) for quota in await quotas.list(caller)]}

    @router.get("/workspaces/{workspace_id}/quota")
    async def get_quota(workspace_id: str, caller: Caller) -> dict[str, Any]:
        """The quotas of a workspace. For its members and for operators."""
        return shown(await quotas.get(caller, workspace_id))

    @router.put("/workspaces/{workspace_id}/quota")
    async def set_quota(workspace_id: str, body: QuotaInput, caller: Caller) -> dict[str, Any]:
        """Choose how many scoring requests a second a workspace may send, or how many slots its replicas may take.

        For operators.
        """
        return shown(await quotas.set(caller, workspace_id, body.chosen()))

    @router.delete("/workspaces/{workspace_id}/quota")
    async def reset_quota(
        workspace_id: str, caller: Caller, quota: Annotated[QuotaName | None, Query()] = None
    ) -> dict[str, Any]:
        """Give a workspace the default again: of one quota, or of all. For operators."""
        names = QUOTA_NAMES if quota is None else (quota,)
        return shown(await quotas.set(caller, workspace_id, ChosenQuotas(dict.fromkeys(names))))

    return router
