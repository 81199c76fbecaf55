"""``/api/2.0/serving-endpoints``: parse, call the use case, present. No rules."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from servery_controller.api.callers import SERVED_WORKSPACES_ONLY, Caller
from servery_controller.api.present import detailed, listed
from servery_controller.api.schemas import ConfigInput, CreateInput, config_version_in
from servery_controller.builder_client import BuilderClient
from servery_controller.compute.backend import ComputeBackend
from servery_controller.domain.endpoint import Deployment
from servery_controller.domain.permissions import level_of
from servery_controller.endpoints.endpoint_service import CreateRequest, EndpointService

LOG_TAIL = 1000


def host_of(request: Request) -> str:
    """Where the client reached the gateway: ``http://host:port/``."""
    return str(request.base_url)


async def config_version_of(
    request: Request, config_version: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None
) -> int | None:
    """The config version asked about. Databricks' documentation writes it into the body of a GET, too."""
    return config_version if config_version is not None else config_version_in(await request.body())


Host = Annotated[str, Depends(host_of)]
ConfigVersion = Annotated[int | None, Depends(config_version_of)]


def endpoints_router(
    service: EndpointService,
    builder: BuilderClient,
    backend: ComputeBackend,
    withdraw_route: Callable[[str], Awaitable[None]],
) -> APIRouter:
    """The routes. ``withdraw_route`` tells gateways of a deletion before it is answered."""
    router = APIRouter(
        prefix="/api/2.0/serving-endpoints",
        tags=["serving-endpoints"],
        dependencies=SERVED_WORKSPACES_ONLY,
    )

    async def create_endpoint(body: CreateInput, caller: Caller, host: Host) -> dict[str, Any]:
        """Create a serving endpoint."""
        deployment = await service.create(
            CreateRequest(
                name=body.name,
                config=body.config.to_request() if body.config and _holds_entities(body.config) else None,
                description=body.description or "",
                tags=tuple((tag.key, tag.value) for tag in body.tags or ()),
                route_optimized=bool(body.route_optimized),
                rate_limits=body.wanted_rate_limits(),
                email_notifications=body.email_notifications.to_domain(),
                budget_policy_id=body.budget_policy_id,
            ),
            caller,
        )
        return detailed(deployment, host, seen=backend.observe())

    async def list_endpoints(caller: Caller) -> dict[str, Any]:
        """List the serving endpoints of the workspace."""
        return {"endpoints": [listed(d, level_of(caller, d.grants)) for d in await service.find_all(caller)]}

    # mlflow.deployments writes the collection with a trailing slash and follows no redirect.
    for path in ("", "/"):
        router.post(path, include_in_schema=not path)(create_endpoint)
        router.get(path, include_in_schema=not path)(list_endpoints)

    @router.get("/{name}")
    async def get_endpoint(name: str, caller: Caller, host: Host) -> dict[str, Any]:
        """Get one serving endpoint."""
        deployment = await service.get(name, caller)
        return detailed(deployment, host, level_of(caller, deployment.grants), backend.observe())

    @router.delete("/{name}")
    async def delete_endpoint(name: str, caller: Caller) -> dict[str, Any]:
        """Delete a serving endpoint. Requests in flight are answered."""
        await withdraw_route(await service.delete(name, caller))
        return {}

    @router.put("/{name}/config")
    async def update_config(name: str, body: ConfigInput, caller: Caller, host: Host) -> dict[str, Any]:
        """Start a new config version; the active one serves until it is ready."""
        deployment = await service.update_config(name, body.to_request(), caller)
        return detailed(deployment, host, seen=backend.observe())

    @router.post("/{name}/config:cancel")
    async def cancel_update(name: str, caller: Caller, host: Host) -> dict[str, Any]:
        """Give up the update under way; the active config stays."""
        return detailed(await service.cancel_update(name, caller), host, seen=backend.observe())

    @router.get("/{name}/served-models/{served}/build-logs")
    async def build_logs(
        name: str, served: str, caller: Caller, config_version: ConfigVersion
    ) -> dict[str, str]:
        """The build log of a served entity."""
        _, entity = await service.served_entity(name, served, config_version, caller)
        return {"logs": await builder.build_log(entity.build_id)}

    @router.get("/{name}/served-models/{served}/logs")
    async def server_logs(
        name: str, served: str, caller: Caller, config_version: ConfigVersion
    ) -> dict[str, str]:
        """What the model of a served entity printed, replica by replica."""
        deployment, entity = await service.served_entity(name, served, config_version, caller)
        return {"logs": await _server_logs(backend, deployment, entity.id)}

    return router


def _holds_entities(config: ConfigInput) -> bool:
    # An absent list means "no config yet"; an empty one is a mistake and is refused by the rules.
    return config.served_entities is not None or config.served_models is not None


async def _server_logs(backend: ComputeBackend, deployment: Deployment, entity_id: str) -> str:
    parts: list[str] = []
    for replica in deployment.replicas_of(entity_id):
        text = await backend.logs(replica.id, LOG_TAIL)
        parts += [f"[{replica.id[:8]}] {line}" for line in text.splitlines()]
    return "\n".join(parts)
