"""``GET /api/2.0/serving-endpoints/{name}/openapi``: an endpoint described for generators and people."""

import asyncio
import json

from fastapi import APIRouter, Request, Response

from servery_common.errors import BadRequest
from servery_controller.api.callers import SERVED_WORKSPACES_ONLY, Caller
from servery_controller.api.endpoints import host_of
from servery_controller.builder_client import BuilderClient
from servery_controller.domain.endpoint import ServedEntity
from servery_controller.domain.openapi import DescribedEntity, openapi_document
from servery_controller.endpoints.endpoint_service import EndpointService


def openapi_router(service: EndpointService, builder: BuilderClient, public_url: str) -> APIRouter:
    """The route. ``public_url`` is where clients reach the gateway, for a caller that did not say where it did."""
    router = APIRouter(
        prefix="/api/2.0/serving-endpoints", tags=["serving-endpoints"], dependencies=SERVED_WORKSPACES_ONLY
    )

    async def described(entity: ServedEntity) -> DescribedEntity:
        return DescribedEntity(entity.spec.name, await builder.describe_model(entity.build_id))

    # Answered as JSON whatever is accepted: databricks-sdk asks for text/plain and reads bytes.
    @router.get("/{name}/openapi")
    async def get_open_api(name: str, caller: Caller, request: Request) -> Response:
        """The OpenAPI document of an endpoint that is ready."""
        deployment = await service.get(name, caller)
        active = deployment.active
        if active is None:
            raise BadRequest(
                f"Endpoint '{name}' is not ready: its OpenAPI document describes what it serves. "
                "Wait until state.ready is READY, then try again."
            )
        entities = await asyncio.gather(*map(described, deployment.entities_of(active.version)))
        host = host_of(request) if request.headers.get("host") else public_url
        document = openapi_document(name, active.version, host.rstrip("/"), entities)
        # ASCII: texts of a model may hold half of a surrogate pair, which UTF-8 cannot.
        return Response(json.dumps(document), media_type="application/json")

    return router
