"""The use cases of the directory: users, service principals, groups. One transaction each, then publication.

Changes of one workspace's directory happen one after the other. Each is written first and then checked as a whole,
before the commit: groups must not contain each other, and somebody must remain who administers the workspace.
"""

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import structlog

from servery_common.contracts.access import Identity, PrincipalKind
from servery_common.errors import InvalidParameter, NotFound, PermissionDenied
from servery_common.postgres.pool import Connection, Pool
from servery_controller.access import credential_store, directory_store
from servery_controller.access.authority import require_admin
from servery_controller.access.publisher import AccessPublisher
from servery_controller.access.scim import GroupChange, PrincipalChange
from servery_controller.domain.directory import (
    ADMINS,
    USERS,
    Group,
    MemberKind,
    Principal,
    Reference,
    check_name,
    check_text,
    find_cycle,
)
from servery_controller.endpoints import endpoint_grants
from servery_controller.endpoints.endpoint_changes import EndpointChanges

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PrincipalView:
    """A principal with the groups it is a direct member of."""

    principal: Principal
    groups: Sequence[Reference]


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group with its direct members and the groups it is a direct member of."""

    group: Group
    members: Sequence[Reference]
    groups: Sequence[Reference]


@dataclass
class Change:
    """A change under way: its transaction, and what will be gone after it."""

    conn: Connection
    gone_tokens: list[str] = field(default_factory=list[str])
    gone_principals: list[str] = field(default_factory=list[str])
    endpoints: dict[str, int] = field(default_factory=dict[str, int])
    """Generations, by id, of the endpoints that gateways are told of anew."""


class DirectoryService:
    """Everybody may read; only administrators of the workspace may write."""

    def __init__(self, pool: Pool, publisher: AccessPublisher, changes: EndpointChanges) -> None:
        self._pool = pool
        self._publisher = publisher
        self._changes = changes

    async def me(self, caller: Identity) -> PrincipalView:
        """Return the caller."""
        principal = await directory_store.find_principal(self._pool, caller.workspace_id, caller.user_name)
        if principal is None:
            raise NotFound("You were removed from the workspace.")
        return (await self.with_groups([principal]))[0]

    async def principals(self, caller: Identity, kind: PrincipalKind) -> list[Principal]:
        """Return all users or all service principals of the caller's workspace."""
        return await directory_store.find_principals(self._pool, caller.workspace_id, kind)

    async def with_groups(self, principals: Sequence[Principal]) -> list[PrincipalView]:
        """Return principals with their groups."""
        groups = await directory_store.groups_of(self._pool, [p.number for p in principals])
        return [PrincipalView(p, groups.get(p.number, [])) for p in principals]

    async def principal(self, caller: Identity, kind: PrincipalKind, number: int) -> PrincipalView:
        """Return one principal. Raises NotFound."""
        principal = await _get_principal(self._pool, caller, kind, number)
        return (await self.with_groups([principal]))[0]

    async def create_user(
        self, caller: Identity, name: str, display_name: str, *, active: bool, groups: Collection[int]
    ) -> PrincipalView:
        """Add a user. Raises AlreadyExists, InvalidParameter."""
        return await self._create(caller, "user", check_name("userName", name), display_name, active, groups)

    async def create_service_principal(
        self,
        caller: Identity,
        application_id: str,
        display_name: str,
        *,
        active: bool,
        groups: Collection[int],
    ) -> PrincipalView:
        """Add a service principal; without an application id it gets a new one."""
        try:
            name = str(UUID(application_id) if application_id else uuid4())
        except ValueError:
            raise InvalidParameter(
                "applicationId must be a UUID; leave it out to be given a new one."
            ) from None
        return await self._create(caller, "service_principal", name, display_name, active, groups)

    async def change_principal(
        self, caller: Identity, kind: PrincipalKind, number: int, change: PrincipalChange
    ) -> PrincipalView:
        """Change what may change of a principal. Deactivated, it can do nothing any more."""
        async with self._changing(caller) as ongoing:
            principal = await _get_principal(ongoing.conn, caller, kind, number)
            if change.name is not None and change.name.lower() != principal.name.lower():
                raise InvalidParameter(
                    f"'{principal.name}' cannot be renamed, since permissions name it. Create another and delete this."
                )
            active = principal.active if change.active is None else change.active
            if not active:
                await _end(ongoing, principal)
            display_name = principal.display_name if change.display_name is None else change.display_name
            await directory_store.update_principal(
                ongoing.conn, number, display_name=check_text("displayName", display_name), active=active
            )
        log.info("principal_changed", principal=principal.name, active=active, by=caller.user_name)
        return await self.principal(caller, kind, number)

    async def delete_principal(self, caller: Identity, kind: PrincipalKind, number: int) -> None:
        """Remove a principal with its tokens and secrets. Its endpoints stay."""
        async with self._changing(caller) as ongoing:
            principal = await _get_principal(ongoing.conn, caller, kind, number)
            await _end(ongoing, principal)
            ongoing.endpoints |= await endpoint_grants.make_endpoints_due(ongoing.conn, number)
            await directory_store.delete_principal(ongoing.conn, number)
        log.info("principal_deleted", principal=principal.name, kind=kind, by=caller.user_name)

    async def groups(self, caller: Identity) -> list[Group]:
        """Return all groups of the caller's workspace."""
        return await directory_store.find_groups(self._pool, caller.workspace_id)

    async def with_members(self, groups: Sequence[Group]) -> list[GroupView]:
        """Return groups with their members."""
        numbers = [group.number for group in groups]
        members = await directory_store.members_of(self._pool, numbers)
        containing = await directory_store.groups_of(self._pool, numbers)
        return [GroupView(g, members.get(g.number, []), containing.get(g.number, [])) for g in groups]

    async def group(self, caller: Identity, number: int) -> GroupView:
        """Return one group. Raises NotFound."""
        return (await self.with_members([await _get_group(self._pool, caller, number)]))[0]

    async def create_group(self, caller: Identity, name: str, members: Collection[int]) -> GroupView:
        """Add a group. Raises AlreadyExists, InvalidParameter."""
        async with self._changing(caller) as ongoing:
            name = check_name("displayName", name)
            group = await directory_store.insert_group(ongoing.conn, caller.workspace_id, name)
            await _set_members(ongoing.conn, group, frozenset(), frozenset(members))
        log.info("group_created", group=name, by=caller.user_name)
        return await self.group(caller, group.number)

    async def change_group(self, caller: Identity, number: int, change: GroupChange) -> GroupView:
        """Rename a group or change its members."""
        async with self._changing(caller) as ongoing:
            group = await _get_group(ongoing.conn, caller, number)
            if change.name is not None and change.name != group.name:
                _refuse_system_group(group, "renamed")
                ongoing.endpoints |= await endpoint_grants.make_endpoints_due(ongoing.conn, number)
                await directory_store.rename_group(
                    ongoing.conn, number, check_name("displayName", change.name)
                )
            if change.members:
                references = (await directory_store.members_of(ongoing.conn, [number])).get(number, [])
                before = frozenset(reference.number for reference in references)
                await _set_members(ongoing.conn, group, before, change.members_after(before))
        log.info("group_changed", group=group.name, by=caller.user_name)
        return await self.group(caller, number)

    async def delete_group(self, caller: Identity, number: int) -> None:
        """Remove a group; its members stay."""
        async with self._changing(caller) as ongoing:
            group = await _get_group(ongoing.conn, caller, number)
            _refuse_system_group(group, "deleted")
            ongoing.endpoints |= await endpoint_grants.make_endpoints_due(ongoing.conn, number)
            await directory_store.delete_group(ongoing.conn, number)
        log.info("group_deleted", group=group.name, by=caller.user_name)

    async def _create(
        self,
        caller: Identity,
        kind: PrincipalKind,
        name: str,
        display_name: str,
        active: bool,
        groups: Collection[int],
    ) -> PrincipalView:
        shown = check_text("displayName", display_name)
        async with self._changing(caller) as ongoing:
            principal = await directory_store.insert_principal(
                ongoing.conn, uuid4().hex, caller.workspace_id, kind, name, shown, active=active
            )
            for number in groups:
                group = await _get_group(ongoing.conn, caller, number)
                await directory_store.add_members(ongoing.conn, group.number, principals=[principal.number])
        log.info("principal_created", principal=name, kind=kind, by=caller.user_name)
        return await self.principal(caller, kind, principal.number)

    @asynccontextmanager
    async def _changing(self, caller: Identity) -> AsyncGenerator[Change]:
        require_admin(caller)
        async with self._pool.acquire() as conn, conn.transaction():
            await directory_store.lock_workspace(conn, caller.workspace_id)
            change = Change(conn)
            yield change
            await _check(conn, caller.workspace_id)
        await self._publisher.workspace_changed(
            caller.workspace_id, gone_tokens=change.gone_tokens, gone_principals=change.gone_principals
        )
        await self._changes.published(change.endpoints)


async def _check(conn: Connection, workspace_id: str) -> None:
    if find_cycle(await directory_store.nesting(conn, workspace_id)):
        raise InvalidParameter("Groups may not contain each other: one of the members contains the group.")
    if not await directory_store.has_admin(conn, workspace_id):
        raise InvalidParameter(
            f"This would leave the workspace without an administrator. Add somebody else to '{ADMINS}' first."
        )


async def _end(change: Change, principal: Principal) -> None:
    """Note that nobody may call as this principal any more."""
    if principal.operator:
        raise PermissionDenied(
            f"'{principal.name}' operates this installation and is set where the installation is configured "
            "(SERVERY_ADMIN_USER); it cannot be deleted or deactivated here."
        )
    change.gone_tokens += await credential_store.token_hashes(change.conn, principal.id)
    change.gone_principals.append(principal.id)


async def _set_members(conn: Connection, group: Group, before: frozenset[int], after: frozenset[int]) -> None:
    added, removed = after - before, before - after
    kinds = await directory_store.kinds_of(conn, group.workspace_id, added)
    if unknown := sorted(added - kinds.keys()):
        raise InvalidParameter(
            f"No user, service principal or group of the workspace has the id {unknown[0]}."
        )
    if group.name == USERS and (removed or MemberKind.GROUP in kinds.values()):
        raise InvalidParameter(
            f"'{USERS}' holds every principal of the workspace; its members cannot be chosen."
        )
    await directory_store.add_members(
        conn,
        group.number,
        principals=[n for n, kind in kinds.items() if kind is not MemberKind.GROUP],
        subgroups=[n for n, kind in kinds.items() if kind is MemberKind.GROUP],
    )
    await directory_store.remove_members(conn, group.number, removed)


async def _get_principal(
    conn: Connection | Pool, caller: Identity, kind: PrincipalKind, number: int
) -> Principal:
    principal = await directory_store.get_principal(conn, caller.workspace_id, kind, number)
    if principal is None:
        raise NotFound(
            f"{'User' if kind == 'user' else 'Service principal'} with id {number} does not exist."
        )
    return principal


async def _get_group(conn: Connection | Pool, caller: Identity, number: int) -> Group:
    group = await directory_store.get_group(conn, caller.workspace_id, number)
    if group is None:
        raise NotFound(f"Group with id {number} does not exist.")
    return group


def _refuse_system_group(group: Group, done: str) -> None:
    if group.is_system:
        raise InvalidParameter(f"The group '{group.name}' belongs to every workspace; it cannot be {done}.")
