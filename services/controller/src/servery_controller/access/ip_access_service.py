"""The use cases of IP access lists: administrators of a workspace say from where it may be reached.

Each change is looked at as a whole, with the workspace held: what two administrators change at the same time may be
fine one by one and lock both of them out together.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import uuid4

import structlog

from servery_common.contracts.access import Identity
from servery_common.errors import NotFound
from servery_common.postgres.pool import Connection, Pool
from servery_controller.access import directory_store, ip_access_store
from servery_controller.access.authority import require_admin
from servery_controller.access.publisher import AccessPublisher
from servery_controller.domain.directory import check_name
from servery_controller.domain.ip_access import (
    IpAccess,
    IpAccessList,
    ListType,
    check_addresses,
    check_change,
)

log = structlog.get_logger(__name__)


class Admin(NamedTuple):
    """Who asks, and from which address (None: not known)."""

    identity: Identity
    client: str | None


@dataclass(frozen=True, slots=True)
class ListChange:
    """What should become of a list. None: as it is."""

    label: str | None = None
    list_type: ListType | None = None
    addresses: tuple[str, ...] | None = None
    enabled: bool | None = None


class IpAccessService:
    """Reads and changes the lists of the caller's workspace. Gateways were told of a change when it returns."""

    def __init__(self, pool: Pool, publisher: AccessPublisher) -> None:
        self._pool = pool
        self._publisher = publisher

    async def all(self, caller: Identity) -> list[IpAccessList]:
        """Return all lists, oldest first."""
        require_admin(caller)
        return await ip_access_store.find_lists(self._pool, caller.workspace_id)

    async def get(self, caller: Identity, list_id: str) -> IpAccessList:
        """Return one list. Raises NotFound."""
        return _chosen(await self.all(caller), list_id)

    async def create(
        self, admin: Admin, label: str, list_type: ListType, addresses: tuple[str, ...]
    ) -> IpAccessList:
        """Add a list, enabled. Raises InvalidParameter, QuotaExceeded, LockedOut."""
        require_admin(admin.identity)
        label, addresses = check_name("label", label), check_addresses(addresses)
        now = datetime.now(UTC)
        async with self._changing(admin) as (conn, before):
            number = await ip_access_store.principal_number(conn, admin.identity.principal_id)
            new = IpAccessList(str(uuid4()), label, list_type, addresses, True, now, number, now, number)
            _check(admin, replace(before, lists=(*before.lists, new)))
            await ip_access_store.insert_list(conn, admin.identity.workspace_id, new)
        await self._tell("ip_access_list_created", admin, new)
        return new

    async def change(self, admin: Admin, list_id: str, change: ListChange) -> IpAccessList:
        """Change a list as far as ``change`` says. Raises NotFound, InvalidParameter, QuotaExceeded, LockedOut."""
        require_admin(admin.identity)
        async with self._changing(admin) as (conn, before):
            known = _chosen(before.lists, list_id)
            changed = replace(
                known,
                label=known.label if change.label is None else check_name("label", change.label),
                list_type=known.list_type if change.list_type is None else change.list_type,
                addresses=known.addresses if change.addresses is None else check_addresses(change.addresses),
                enabled=known.enabled if change.enabled is None else change.enabled,
                updated_at=datetime.now(UTC),
                updated_by=await ip_access_store.principal_number(conn, admin.identity.principal_id),
            )
            lists = tuple(changed if one is known else one for one in before.lists)
            _check(admin, replace(before, lists=lists))
            await ip_access_store.update_list(conn, changed)
        await self._tell("ip_access_list_changed", admin, changed)
        return changed

    async def delete(self, admin: Admin, list_id: str) -> None:
        """Remove a list. Raises NotFound, LockedOut: the one that allowed the caller may not go before the others."""
        require_admin(admin.identity)
        async with self._changing(admin) as (conn, before):
            gone = _chosen(before.lists, list_id)
            _check(admin, replace(before, lists=tuple(one for one in before.lists if one is not gone)))
            await ip_access_store.delete_list(conn, list_id)
        await self._tell("ip_access_list_deleted", admin, gone)

    async def enabled(self, caller: Identity) -> bool:
        """Whether the workspace uses its lists."""
        require_admin(caller)
        return await ip_access_store.is_enabled(self._pool, caller.workspace_id)

    async def enable(self, admin: Admin, *, enabled: bool) -> None:
        """Have the workspace use its lists, or not. Raises LockedOut."""
        require_admin(admin.identity)
        workspace_id = admin.identity.workspace_id
        async with self._changing(admin) as (conn, before):
            _check(admin, replace(before, enabled=enabled))
            await ip_access_store.set_enabled(conn, workspace_id, enabled=enabled)
        log.info(
            "ip_access_switched", workspace_id=workspace_id, enabled=enabled, by=admin.identity.user_name
        )
        await self._publisher.ip_access_changed(workspace_id)

    @asynccontextmanager
    async def _changing(self, admin: Admin) -> AsyncGenerator[tuple[Connection, IpAccess]]:
        """Hold the workspace and hand out what there is; commit at the end."""
        workspace_id = admin.identity.workspace_id
        async with self._pool.acquire() as conn, conn.transaction():
            await directory_store.lock_workspace(conn, workspace_id)
            yield (
                conn,
                IpAccess(
                    await ip_access_store.is_enabled(conn, workspace_id),
                    tuple(await ip_access_store.find_lists(conn, workspace_id)),
                ),
            )

    async def _tell(self, happened: str, admin: Admin, changed: IpAccessList) -> None:
        workspace_id = admin.identity.workspace_id
        log.info(
            happened,
            workspace_id=workspace_id,
            list_id=changed.id,
            list_type=changed.list_type,
            addresses=len(changed.addresses),
            enabled=changed.enabled,
            by=admin.identity.user_name,
        )
        await self._publisher.ip_access_changed(workspace_id)


def _check(admin: Admin, after: IpAccess) -> None:
    check_change(admin.identity.workspace_id, after, admin.client)


def _chosen(lists: "list[IpAccessList] | tuple[IpAccessList, ...]", list_id: str) -> IpAccessList:
    for one in lists:
        if one.id == list_id:
            return one
    raise NotFound(f"IP access list with id '{list_id[:100]}' does not exist.")
