"""``/api/2.0/preview/scim/v2/Me``: who the caller is, as databricks-sdk's ``current_user.me()`` asks."""

import hashlib
from typing import Any

from fastapi import APIRouter

from servery_controller.api.endpoints import Caller

USER_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:User"


def identity_router() -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/api/2.0/preview/scim/v2", tags=["scim"])

    @router.get("/Me")
    async def me(caller: Caller) -> dict[str, Any]:
        """The authenticated user."""
        # Databricks' ids are numbers in a string; this one stays the same for a user of a workspace.
        digest = hashlib.sha256(f"{caller.workspace_id}/{caller.user_name}".encode()).digest()
        return {
            "schemas": [USER_SCHEMA],
            "id": str(int.from_bytes(digest[:7])),
            "userName": caller.user_name,
            "displayName": caller.user_name,
            "active": True,
            "emails": [{"type": "work", "value": caller.user_name, "primary": True}],
            "groups": [{"display": "admins", "type": "direct"}] if caller.admin else [],
        }

    return router
