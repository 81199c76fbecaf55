"""``/api/2.0/serving-endpoints/{name}/events``: what happened to an endpoint, newest first."""

from typing import Any

from fastapi import APIRouter

from servery_controller.api.callers import SERVED_WORKSPACES_ONLY, Caller
from servery_controller.endpoints.events import EventLog, RecordedEvent


def events_router(log: EventLog) -> APIRouter:
    """The routes."""
    router = APIRouter(
        prefix="/api/2.0/serving-endpoints",
        tags=["serving-endpoints"],
        dependencies=SERVED_WORKSPACES_ONLY,
    )

    @router.get("/{name}/events")
    async def list_events(name: str, caller: Caller) -> dict[str, Any]:
        """The events of an endpoint."""
        return {"events": [_presented(each) for each in await log.read(name, caller)]}

    return router


def _presented(recorded: RecordedEvent) -> dict[str, Any]:
    event = recorded.event
    answer: dict[str, Any] = {
        "event_type": event.type,
        "status": event.status,
        "message": event.message,
        "timestamp": int(recorded.happened_at.timestamp() * 1000),
    }
    if event.config_version is not None:
        answer["config_version"] = event.config_version
    if event.served_entity_name is not None:
        answer["served_entity_name"] = event.served_entity_name
    return answer
