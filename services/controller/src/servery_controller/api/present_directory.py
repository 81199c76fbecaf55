"""Users, service principals and groups as the SCIM API answers them. Pure."""

from collections.abc import Sequence
from typing import Any

from servery_controller.access.directory_service import GroupView, PrincipalView
from servery_controller.domain.directory import MemberKind, Reference

USER_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:User"
SERVICE_PRINCIPAL_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:ServicePrincipal"
GROUP_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:Group"
LIST_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:ListResponse"

_COLLECTIONS = {
    MemberKind.USER: "Users",
    MemberKind.SERVICE_PRINCIPAL: "ServicePrincipals",
    MemberKind.GROUP: "Groups",
}


def present_principal(view: PrincipalView, *, as_user: bool = False) -> dict[str, Any]:
    """A User or a ServicePrincipal; ``Me`` answers a User for both."""
    principal = view.principal
    answer: dict[str, Any] = {
        "id": str(principal.number),
        "displayName": principal.display_name or principal.name,
        "active": principal.active,
        "groups": [_reference(group) | {"type": "direct"} for group in view.groups],
    }
    if principal.kind == "user" or as_user:
        answer["schemas"] = [USER_SCHEMA]
        answer["userName"] = principal.name
        answer["name"] = {"givenName": principal.display_name or principal.name}
    if principal.kind == "user":
        answer["emails"] = [{"type": "work", "value": principal.name, "primary": True}]
    elif not as_user:
        answer["schemas"] = [SERVICE_PRINCIPAL_SCHEMA]
        answer["applicationId"] = principal.name
    return answer


def present_group(view: GroupView) -> dict[str, Any]:
    """A Group with its direct members."""
    return {
        "schemas": [GROUP_SCHEMA],
        "id": str(view.group.number),
        "displayName": view.group.name,
        "members": [_reference(member) for member in view.members],
        "groups": [_reference(group) | {"type": "direct"} for group in view.groups],
        "meta": {"resourceType": "WorkspaceGroup"},
    }


def present_page(resources: Sequence[dict[str, Any]], start_index: int, total: int) -> dict[str, Any]:
    """A ListResponse."""
    return {
        "schemas": [LIST_SCHEMA],
        "totalResults": total,
        "startIndex": start_index,
        "itemsPerPage": len(resources),
        "Resources": list(resources),
    }


def selected(resource: dict[str, Any], attributes: str | None, excluded: str | None) -> dict[str, Any]:
    """Return a resource with the attributes asked for; its id and schemas always stay."""
    always = {"id", "schemas"}
    if attributes:
        wanted = _names(attributes)
        resource = {k: v for k, v in resource.items() if k in always or k.lower() in wanted}
    if excluded:
        unwanted = _names(excluded)
        resource = {k: v for k, v in resource.items() if k in always or k.lower() not in unwanted}
    return resource


def _names(text: str) -> set[str]:
    # ``name.givenName`` names a part; the whole attribute is answered.
    return {name.strip().split(".")[0].lower() for name in text.split(",")}


def _reference(reference: Reference) -> dict[str, str]:
    return {
        "value": str(reference.number),
        "display": reference.display,
        "$ref": f"{_COLLECTIONS[reference.kind]}/{reference.number}",
    }
