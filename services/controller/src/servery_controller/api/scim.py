"""``/api/2.0/preview/scim/v2``: users, service principals and groups, as databricks-sdk manages them (RFC 7644)."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import Response
from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from servery_common.contracts.access import PrincipalKind
from servery_common.errors import InvalidParameter
from servery_controller.access.directory_service import DirectoryService
from servery_controller.access.scim import (
    GroupChange,
    MemberChange,
    PrincipalChange,
    member_numbers,
    parse_filter,
    parse_group_patch,
    parse_principal_patch,
)
from servery_controller.api.body import Body, Text
from servery_controller.api.callers import Caller
from servery_controller.api.present_directory import present_group, present_page, present_principal, selected
from servery_controller.domain.directory import Group, Principal

T = TypeVar("T")

MAX_COUNT = 10_000
"""Resources in one answer; databricks-sdk asks for so many."""

Number = Annotated[int, Path(ge=0, le=2**63 - 1)]
"""An id in a path: of a user, service principal or group."""


class ListQuery:
    """The parameters of a list."""

    def __init__(
        self,
        filter: Annotated[str | None, Query()] = None,
        start_index: Annotated[int, Query(alias="startIndex", ge=1)] = 1,
        count: Annotated[int, Query(ge=0)] = MAX_COUNT,
        sort_by: Annotated[str | None, Query(alias="sortBy")] = None,
        sort_order: Annotated[str, Query(alias="sortOrder")] = "ascending",
    ) -> None:
        self.filter = filter
        self.start_index = start_index
        self.count = min(count, MAX_COUNT)
        self.sort_by = sort_by
        self.descending = sort_order.lower() == "descending"

    def chosen(self, everything: Sequence[T], values: dict[str, Callable[[T], str]]) -> list[T]:
        """Return what passes the filter, sorted. ``values`` gives the attributes both may name."""
        chosen = list(everything)
        if self.filter:
            wanted = parse_filter(self.filter, values)
            chosen = [item for item in chosen if wanted.matches(values[wanted.attribute](item))]
        if self.sort_by:
            if self.sort_by not in values:
                raise InvalidParameter(
                    f"Cannot sort by {self.sort_by[:100]!r}: use one of {', '.join(values)}."
                )
            chosen.sort(key=values[self.sort_by], reverse=self.descending)
        return chosen

    def page(self, chosen: Sequence[T]) -> Sequence[T]:
        """Return the part that was asked for."""
        return chosen[self.start_index - 1 : self.start_index - 1 + self.count]


class Attributes:
    """Which attributes the answer shall have."""

    def __init__(
        self,
        attributes: Annotated[str | None, Query()] = None,
        excluded: Annotated[str | None, Query(alias="excludedAttributes")] = None,
    ) -> None:
        self._attributes = attributes
        self._excluded = excluded

    def of(self, resource: dict[str, Any]) -> dict[str, Any]:
        """Return the resource with those attributes only."""
        return selected(resource, self._attributes, self._excluded)


Listing = Annotated[ListQuery, Depends(ListQuery)]
Chosen = Annotated[Attributes, Depends(Attributes)]


class ScimBody(Body):
    """Part of a request body, with SCIM's spelling of names."""

    model_config = ConfigDict(alias_generator=to_camel)


class PrincipalInput(ScimBody):
    """A user or service principal as sent."""

    user_name: Text | None = None
    application_id: Text | None = None
    display_name: Text | None = None
    active: bool | None = None
    groups: list[dict[str, Any]] | None = None


class GroupInput(ScimBody):
    """A group as sent."""

    display_name: Text | None = None
    members: list[dict[str, Any]] | None = None


class PatchInput(ScimBody):
    """The body of a PATCH."""

    operations: list[dict[str, Any]] = Field(alias="Operations")


def scim_router(directory: DirectoryService) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/api/2.0/preview/scim/v2", tags=["scim"])

    @router.get("/Me")
    async def me(caller: Caller, attributes: Chosen) -> dict[str, Any]:
        """The caller."""
        return attributes.of(present_principal(await directory.me(caller), as_user=True))

    _add_principals(router, directory, "user", "/Users")
    _add_principals(router, directory, "service_principal", "/ServicePrincipals")
    _add_groups(router, directory)
    return router


def _add_principals(router: APIRouter, directory: DirectoryService, kind: PrincipalKind, path: str) -> None:
    name_attribute = "userName" if kind == "user" else "applicationId"

    async def create(body: PrincipalInput, caller: Caller) -> dict[str, Any]:
        """Add one."""
        active = body.active is not False
        groups = member_numbers(body.groups or [])
        if kind == "user":
            name = body.user_name or ""
            made = await directory.create_user(
                caller, name, body.display_name or "", active=active, groups=groups
            )
        else:
            name = body.application_id or ""
            made = await directory.create_service_principal(
                caller, name, body.display_name or "", active=active, groups=groups
            )
        return present_principal(made)

    async def list_all(caller: Caller, asked: Listing, attributes: Chosen) -> dict[str, Any]:
        """List those that pass the filter."""
        values: dict[str, Callable[[Principal], str]] = {
            name_attribute: lambda p: p.name,
            "displayName": lambda p: p.display_name,
            "id": lambda p: str(p.number),
        }
        chosen = asked.chosen(await directory.principals(caller, kind), values)
        views = await directory.with_groups(asked.page(chosen))
        resources = [attributes.of(present_principal(view)) for view in views]
        return present_page(resources, asked.start_index, len(chosen))

    async def get(number: Number, caller: Caller, attributes: Chosen) -> dict[str, Any]:
        """Get one."""
        return attributes.of(present_principal(await directory.principal(caller, kind, number)))

    async def patch(number: Number, body: PatchInput, caller: Caller) -> dict[str, Any]:
        """Change some attributes of one."""
        change = parse_principal_patch(body.operations)
        return present_principal(await directory.change_principal(caller, kind, number, change))

    async def put(number: Number, body: PrincipalInput, caller: Caller) -> dict[str, Any]:
        """Replace one's attributes, as far as given. Its groups stay: they are changed at the group."""
        change = PrincipalChange(
            display_name=body.display_name,
            active=body.active,
            name=body.user_name if kind == "user" else body.application_id,
        )
        return present_principal(await directory.change_principal(caller, kind, number, change))

    async def delete(number: Number, caller: Caller) -> Response:
        """Remove one."""
        await directory.delete_principal(caller, kind, number)
        return Response(status_code=204)

    _add_routes(router, path, create, list_all, get, patch, put, delete)


def _add_groups(router: APIRouter, directory: DirectoryService) -> None:
    async def create(body: GroupInput, caller: Caller) -> dict[str, Any]:
        """Add a group."""
        members = member_numbers(body.members or [])
        return present_group(await directory.create_group(caller, body.display_name or "", members))

    async def list_all(caller: Caller, asked: Listing, attributes: Chosen) -> dict[str, Any]:
        """List the groups that pass the filter."""
        values: dict[str, Callable[[Group], str]] = {
            "displayName": lambda g: g.name,
            "id": lambda g: str(g.number),
        }
        chosen = asked.chosen(await directory.groups(caller), values)
        views = await directory.with_members(asked.page(chosen))
        resources = [attributes.of(present_group(view)) for view in views]
        return present_page(resources, asked.start_index, len(chosen))

    async def get(number: Number, caller: Caller, attributes: Chosen) -> dict[str, Any]:
        """Get a group."""
        return attributes.of(present_group(await directory.group(caller, number)))

    async def patch(number: Number, body: PatchInput, caller: Caller) -> dict[str, Any]:
        """Rename a group or change its members."""
        change = parse_group_patch(body.operations)
        return present_group(await directory.change_group(caller, number, change))

    async def put(number: Number, body: GroupInput, caller: Caller) -> dict[str, Any]:
        """Replace a group's name and members."""
        members = MemberChange("replace", member_numbers(body.members or []))
        change = GroupChange(name=body.display_name, members=(members,))
        return present_group(await directory.change_group(caller, number, change))

    async def delete(number: Number, caller: Caller) -> Response:
        """Remove a group; its members stay."""
        await directory.delete_group(caller, number)
        return Response(status_code=204)

    _add_routes(router, "/Groups", create, list_all, get, patch, put, delete)


def _add_routes(
    router: APIRouter,
    path: str,
    create: Callable[..., Any],
    list_all: Callable[..., Any],
    get: Callable[..., Any],
    patch: Callable[..., Any],
    put: Callable[..., Any],
    delete: Callable[..., Any],
) -> None:
    router.post(path, status_code=201)(create)
    router.get(path)(list_all)
    router.get(f"{path}/{{number}}")(get)
    router.patch(f"{path}/{{number}}")(patch)
    router.put(f"{path}/{{number}}")(put)
    router.delete(f"{path}/{{number}}", status_code=204)(delete)
