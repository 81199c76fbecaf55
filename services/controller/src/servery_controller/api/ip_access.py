"""``/api/2.0/ip-access-lists`` and the switch in ``/api/2.0/workspace-conf``, as databricks-sdk speaks of them."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from servery_common.errors import InvalidParameter, NotImplementedByServery
from servery_controller.access.ip_access_service import Admin, IpAccessService, ListChange
from servery_controller.api.body import Body, Text
from servery_controller.api.callers import Caller, ClientAddress
from servery_controller.domain.ip_access import IpAccessList, ListType

SWITCH = "enableIpAccessLists"
"""The one key of a workspace's configuration that Servery knows."""


class CreateListInput(Body):
    """The body of a new list."""

    label: Text
    list_type: ListType
    ip_addresses: tuple[Text, ...] = ()


class ReplaceListInput(CreateListInput):
    """The body that a list is replaced by."""

    enabled: bool


class UpdateListInput(Body):
    """The body of a change; what is missing stays."""

    label: Text | None = None
    list_type: ListType | None = None
    ip_addresses: tuple[Text, ...] | None = None
    enabled: bool | None = None


def ip_access_router(access: IpAccessService) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/api/2.0", tags=["ip access lists"])

    @router.post("/ip-access-lists")
    async def create_list(body: CreateListInput, caller: Caller, client: ClientAddress) -> dict[str, Any]:
        """Add a list to the caller's workspace. For its administrators, as all of these."""
        admin = Admin(caller, client)
        return _one(await access.create(admin, body.label, body.list_type, body.ip_addresses))

    @router.get("/ip-access-lists")
    async def list_lists(caller: Caller) -> dict[str, Any]:
        """All lists of the workspace."""
        return {"ip_access_lists": [_shown(one) for one in await access.all(caller)]}

    @router.get("/ip-access-lists/{list_id}")
    async def get_list(list_id: str, caller: Caller) -> dict[str, Any]:
        """One list."""
        return _one(await access.get(caller, list_id))

    @router.put("/ip-access-lists/{list_id}")
    async def replace_list(
        list_id: str, body: ReplaceListInput, caller: Caller, client: ClientAddress
    ) -> dict[str, Any]:
        """Replace a list."""
        change = ListChange(body.label, body.list_type, body.ip_addresses, body.enabled)
        return _one(await access.change(Admin(caller, client), list_id, change))

    @router.patch("/ip-access-lists/{list_id}")
    async def update_list(
        list_id: str, body: UpdateListInput, caller: Caller, client: ClientAddress
    ) -> dict[str, Any]:
        """Change some fields of a list."""
        change = ListChange(body.label, body.list_type, body.ip_addresses, body.enabled)
        return _one(await access.change(Admin(caller, client), list_id, change))

    @router.delete("/ip-access-lists/{list_id}")
    async def delete_list(list_id: str, caller: Caller, client: ClientAddress) -> dict[str, Any]:
        """Remove a list."""
        await access.delete(Admin(caller, client), list_id)
        return {}

    @router.get("/workspace-conf")
    async def get_configuration(caller: Caller, keys: Annotated[str, Query()] = "") -> dict[str, str]:
        """Whether the workspace uses its lists: ``keys=enableIpAccessLists``."""
        _require_known(key.strip() for key in keys.split(","))
        return {SWITCH: _written(await access.enabled(caller))}

    @router.patch("/workspace-conf", status_code=204)
    async def set_configuration(body: dict[str, Any], caller: Caller, client: ClientAddress) -> Response:
        """Have the workspace use its lists, or not: ``{"enableIpAccessLists": "true"}``."""
        await access.enable(Admin(caller, client), enabled=_switch(body))
        return Response(status_code=204)

    return router


def _require_known(keys: Iterable[str]) -> None:
    asked = [key for key in keys if key]
    if not asked:
        raise InvalidParameter(f"keys is missing: Servery knows '{SWITCH}'.")
    for key in asked:
        if key != SWITCH:
            # Ignored, it would look as if it had been set.
            raise NotImplementedByServery(
                f"'{key[:100]}' is not supported: of a workspace's configuration Servery knows '{SWITCH}' only."
            )


def _switch(body: Mapping[str, Any]) -> bool:
    _require_known(body)
    match body[SWITCH]:
        case True | "true":
            return True
        case False | "false":
            return False
        case _:
            raise InvalidParameter(f"{SWITCH} must be 'true' or 'false'.")


def _written(value: bool) -> str:
    return "true" if value else "false"


def _one(found: IpAccessList) -> dict[str, Any]:
    return {"ip_access_list": _shown(found)}


def _shown(found: IpAccessList) -> dict[str, Any]:
    shown = {
        "list_id": found.id,
        "label": found.label,
        "list_type": found.list_type,
        "ip_addresses": found.addresses,
        "address_count": len(found.addresses),
        "enabled": found.enabled,
        "created_at": _milliseconds(found.created_at),
        "created_by": found.created_by,
        "updated_at": _milliseconds(found.updated_at),
        "updated_by": found.updated_by,
    }
    return {name: value for name, value in shown.items() if value is not None}


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
