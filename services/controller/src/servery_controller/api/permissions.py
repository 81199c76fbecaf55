"""``/api/2.0/permissions/serving-endpoints/{endpoint_id}``: parse, call the use case, present. No rules.

Shapes follow databricks-sdk (``iam.AccessControlRequest``, ``ObjectPermissions``).
"""

from typing import Any

from fastapi import APIRouter

from servery_common.errors import InvalidParameter, NotImplementedByServery
from servery_controller.api.body import Body, Text
from servery_controller.api.callers import SERVED_WORKSPACES_ONLY, Caller
from servery_controller.domain.permissions import (
    ADMINS,
    DESCRIPTIONS,
    Grantee,
    GranteeKind,
    Grants,
    PermissionLevel,
    collect,
)
from servery_controller.endpoints.permission_service import EndpointPermissions, PermissionService

_FIELDS: dict[GranteeKind, str] = {
    "user": "user_name",
    "group": "group_name",
    "service_principal": "service_principal_name",
}


class AccessControlInput(Body):
    """``access_control_list[]``."""

    user_name: Text | None = None
    group_name: Text | None = None
    service_principal_name: Text | None = None
    permission_level: Text | None = None

    def to_grant(self, index: int) -> tuple[Grantee, PermissionLevel]:
        """Return the domain's value. Raises InvalidParameter."""
        place = f"access_control_list[{index}]"
        named: list[tuple[GranteeKind, str]] = [
            (kind, name) for kind, field in _FIELDS.items() if (name := getattr(self, field))
        ]
        if len(named) != 1:
            raise InvalidParameter(f"{place}: give exactly one of {', '.join(_FIELDS.values())}.")
        try:
            level = PermissionLevel(self.permission_level or "")
        except ValueError:
            raise InvalidParameter(
                f"{place}.permission_level: {(self.permission_level or '')[:100]!r} is not a permission level of a "
                f"serving endpoint; use one of {', '.join(PermissionLevel)}."
            ) from None
        return Grantee(*named[0]), level


class PermissionsInput(Body):
    """The body of PUT and PATCH. An absent list is an empty one."""

    access_control_list: list[AccessControlInput] | None = None

    def to_grants(self) -> Grants:
        """Return the domain's value. Raises InvalidParameter."""
        return collect(entry.to_grant(i) for i, entry in enumerate(self.access_control_list or []))


def permissions_router(service: PermissionService) -> APIRouter:
    """The routes."""
    router = APIRouter(
        prefix="/api/2.0/permissions", tags=["permissions"], dependencies=SERVED_WORKSPACES_ONLY
    )

    @router.get("/serving-endpoints/{endpoint_id}")
    async def get_permissions(endpoint_id: str, caller: Caller) -> dict[str, Any]:
        """Who may do what with an endpoint."""
        return presented(await service.get(endpoint_id, caller))

    @router.put("/serving-endpoints/{endpoint_id}")
    async def set_permissions(endpoint_id: str, body: PermissionsInput, caller: Caller) -> dict[str, Any]:
        """Replace all direct grants."""
        return presented(await service.replace(endpoint_id, body.to_grants(), caller))

    @router.patch("/serving-endpoints/{endpoint_id}")
    async def update_permissions(endpoint_id: str, body: PermissionsInput, caller: Caller) -> dict[str, Any]:
        """Grant more, or other levels; grantees that are not named keep theirs."""
        return presented(await service.merge(endpoint_id, body.to_grants(), caller))

    @router.get("/serving-endpoints/{endpoint_id}/permissionLevels")
    async def get_permission_levels(endpoint_id: str, caller: Caller) -> dict[str, Any]:
        """What can be granted."""
        await service.get(endpoint_id, caller)
        return {
            "permission_levels": [
                {"permission_level": level, "description": text} for level, text in DESCRIPTIONS.items()
            ]
        }

    @router.api_route(
        "/{object_type}/{object_path:path}", methods=["GET", "PUT", "PATCH", "POST"], include_in_schema=False
    )
    async def other_objects(object_type: str) -> None:
        """Permissions on anything else."""
        raise NotImplementedByServery(
            f"Permissions on '{object_type}' are not supported: Servery has permissions on serving-endpoints."
        )

    return router


def presented(permissions: EndpointPermissions) -> dict[str, Any]:
    """Return ``ObjectPermissions``: direct grants, and what the workspace's administrators have anyway."""
    inherited = {
        "permission_level": PermissionLevel.CAN_MANAGE,
        "inherited": True,
        "inherited_from_object": ["/serving-endpoints/"],
    }
    levels: dict[Grantee, list[dict[str, Any]]] = {
        grantee: [{"permission_level": level, "inherited": False}]
        for grantee, level in sorted(permissions.grants.items())
    }
    levels.setdefault(ADMINS, []).append(inherited)
    return {
        "object_id": f"/serving-endpoints/{permissions.endpoint_id}",
        "object_type": "serving-endpoint",
        "access_control_list": [
            {_FIELDS[grantee.kind]: grantee.name, "all_permissions": held} for grantee, held in levels.items()
        ],
    }
