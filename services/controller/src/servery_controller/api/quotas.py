"""``/api/2.0/servery/quotas`` and ``…/workspaces/{id}/quota``: what workspaces may send. Servery's own API."""

from typing import Any

from fastapi import APIRouter

from servery_common.contracts.quotas import DEFAULT_QPS
from servery_controller.access.quota_service import QuotaService
from servery_controller.access.quota_store import Quota
from servery_controller.api.body import Body, Whole
from servery_controller.api.callers import Caller


class QuotaInput(Body):
    """The body of a change."""

    qps: Whole


def quotas_router(quotas: QuotaService) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/api/2.0/servery", tags=["quotas"])

    @router.get("/quotas")
    async def list_quotas(caller: Caller) -> dict[str, Any]:
        """The quotas of all workspaces. For operators."""
        return {"quotas": [_shown(quota) for quota in await quotas.list(caller)]}

    @router.get("/workspaces/{workspace_id}/quota")
    async def get_quota(workspace_id: str, caller: Caller) -> dict[str, Any]:
        """The quota of a workspace. For its members and for operators."""
        return _shown(await quotas.get(caller, workspace_id))

    @router.put("/workspaces/{workspace_id}/quota")
    async def set_quota(workspace_id: str, body: QuotaInput, caller: Caller) -> dict[str, Any]:
        """Choose how many scoring requests a second a workspace may send. For operators."""
        return _shown(await quotas.set(caller, workspace_id, body.qps))

    @router.delete("/workspaces/{workspace_id}/quota")
    async def reset_quota(workspace_id: str, caller: Caller) -> dict[str, Any]:
        """Give a workspace the default quota again. For operators."""
        return _shown(await quotas.set(caller, workspace_id, None))

    return router


def _shown(quota: Quota) -> dict[str, Any]:
    return {
        "workspace_id": quota.workspace_id,
        "workspace_name": quota.workspace_name,
        "qps": quota.qps,
        "default_qps": DEFAULT_QPS,
    }
