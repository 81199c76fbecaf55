"""``/api/2.0/serving-endpoints/{name}/config:stop|config:start``: parse, call, present."""

from typing import Any

from fastapi import APIRouter

from servery_controller.api.callers import SERVED_WORKSPACES_ONLY, Caller
from servery_controller.api.endpoints import Host
from servery_controller.api.present import detailed
from servery_controller.compute.backend import ComputeBackend
from servery_controller.endpoints.endpoint_suspension import EndpointSuspension


def suspension_router(suspension: EndpointSuspension, backend: ComputeBackend) -> APIRouter:
    """The routes."""
    router = APIRouter(
        prefix="/api/2.0/serving-endpoints",
        tags=["serving-endpoints"],
        dependencies=SERVED_WORKSPACES_ONLY,
    )

    @router.post("/{name}/config:stop")
    async def stop_endpoint(name: str, caller: Caller, host: Host) -> dict[str, Any]:
        """Stop an endpoint: its resources are freed, its config is kept."""
        return detailed(await suspension.stop(name, caller), host, seen=backend.observe())

    @router.post("/{name}/config:start")
    async def start_endpoint(name: str, caller: Caller, host: Host) -> dict[str, Any]:
        """Start a stopped endpoint: its config becomes a new version, which is deployed."""
        return detailed(await suspension.start(name, caller), host, seen=backend.observe())

    return router
