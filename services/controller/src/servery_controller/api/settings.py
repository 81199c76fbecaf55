"""``/api/2.0/serving-endpoints/{name}/tags|rate-limits|ai-gateway|notifications``: parse, call, present."""

from typing import Any

from fastapi import APIRouter

from servery_controller.api.callers import SERVED_WORKSPACES_ONLY, Caller
from servery_controller.api.present import email_notifications, rate_limits, tags
from servery_controller.api.settings_schemas import (
    AiGatewayInput,
    NotificationsInput,
    RateLimitsInput,
    TagsInput,
)
from servery_controller.endpoints.endpoint_settings import EndpointSettings


def settings_router(settings: EndpointSettings) -> APIRouter:
    """The routes."""
    router = APIRouter(
        prefix="/api/2.0/serving-endpoints",
        tags=["serving-endpoints"],
        dependencies=SERVED_WORKSPACES_ONLY,
    )

    @router.patch("/{name}/tags")
    async def change_tags(name: str, body: TagsInput, caller: Caller) -> dict[str, Any]:
        """Add, overwrite and delete tags; answers all that are there now."""
        add = [(tag.key, tag.value) for tag in body.add_tags or ()]
        return {"tags": tags(await settings.change_tags(name, add, body.delete_tags or (), caller))}

    @router.put("/{name}/rate-limits")
    async def set_rate_limits(name: str, body: RateLimitsInput, caller: Caller) -> dict[str, Any]:
        """Replace the rate limits."""
        wanted = [limit.to_domain() for limit in body.rate_limits or ()]
        return {"rate_limits": rate_limits(await settings.set_rate_limits(name, wanted, caller))}

    @router.put("/{name}/ai-gateway")
    async def set_ai_gateway(name: str, body: AiGatewayInput, caller: Caller) -> dict[str, Any]:
        """Replace the rate limits, in the newer form."""
        return {"rate_limits": rate_limits(await settings.set_rate_limits(name, body.to_domain(), caller))}

    @router.patch("/{name}/notifications")
    async def set_notifications(name: str, body: NotificationsInput, caller: Caller) -> dict[str, Any]:
        """Replace who is told how updates end."""
        wanted = body.email_notifications.to_domain()
        stored = await settings.set_email_notifications(name, wanted, caller)
        return {"name": name, "email_notifications": email_notifications(stored)}

    return router
