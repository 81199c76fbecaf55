"""``GET /api/2.0/serving-endpoints/{name}/scaling``: why an endpoint has the replicas it has. Servery's own."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from servery_controller.api.callers import SERVED_WORKSPACES_ONLY, Caller
from servery_controller.api.present_scaling import presented
from servery_controller.scaling.scaling_report import ScalingReports
from servery_controller.scaling.scaling_store import KEPT_PER_ENDPOINT

Limit = Annotated[int, Query(ge=0, le=KEPT_PER_ENDPOINT)]


def scaling_router(reports: ScalingReports) -> APIRouter:
    """The route."""
    router = APIRouter(
        prefix="/api/2.0/serving-endpoints", tags=["serving-endpoints"], dependencies=SERVED_WORKSPACES_ONLY
    )

    @router.get("/{name}/scaling")
    async def explain_scaling(name: str, caller: Caller, limit: Limit = 20) -> dict[str, Any]:
        """Replicas, what the scaler sees and decides, and the newest decisions that were kept."""
        return presented(await reports.make(name, limit, caller))

    return router
