"""``GET /api/2.0/serving-endpoints/{name}/metrics``: what a monitoring system scrapes."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from servery_controller.api.callers import SERVED_WORKSPACES_ONLY, Caller
from servery_controller.api.present_metrics import EntityView, exposition
from servery_controller.compute.backend import ComputeBackend
from servery_controller.domain.endpoint import Deployment
from servery_controller.domain.metrics_book import EntityTotals, MetricsBook
from servery_controller.endpoints.endpoint_service import EndpointService

ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/plain": {}, "application/openmetrics-text": {}},
        "description": "One line per sample.",
    }
}


def metrics_router(
    service: EndpointService, backend: ComputeBackend, book: MetricsBook, clock: Callable[[], float]
) -> APIRouter:
    """The route. ``clock`` is the one the book was told by."""
    router = APIRouter(
        prefix="/api/2.0/serving-endpoints", tags=["serving-endpoints"], dependencies=SERVED_WORKSPACES_ONLY
    )

    @router.get("/{name}/metrics", response_class=Response, responses=ANSWERS)
    async def export_metrics(name: str, caller: Caller, accept: Annotated[str, Header()] = "") -> Response:
        """The metrics of an endpoint."""
        deployment = await service.get(name, caller)
        views = _views(deployment, backend, book, clock())
        rejections = book.rejections(deployment.endpoint.id, clock())
        content, media_type = exposition(deployment.endpoint.name, views, rejections, accept)
        return Response(content, headers={"content-type": media_type})

    return router


def _views(
    deployment: Deployment, backend: ComputeBackend, book: MetricsBook, now: float
) -> list[EntityView]:
    """The served entities that get traffic; of an endpoint without any, those that are to get it."""
    shown = deployment.active or deployment.newest
    if shown is None:
        return [EntityView("", EntityTotals(), ())]
    seen = backend.observe().replicas
    return [
        EntityView(
            name=entity.spec.name,
            totals=book.totals(entity.id, now),
            # By their rows: a replica does not know that it was taken over by another config's entity.
            replicas=[seen[r.id] for r in deployment.replicas_of(entity.id) if r.id in seen],
        )
        for entity in deployment.entities_of(shown.version)
    ]
