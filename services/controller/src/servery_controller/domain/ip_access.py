"""IP access lists as rules: what an address looks like, how many there may be, who would lock themselves out. Pure.

Limits and error codes are Databricks' (databricks-sdk, ``IpAccessListsAPI``).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from servery_common.contracts.ip_access import WorkspaceIpAccess
from servery_common.errors import InvalidParameter, InvalidState, QuotaExceeded
from servery_common.ip_rules import IpRules, Network, parse_address, parse_network

MAX_ADDRESSES = 1000
"""In all lists of a workspace together, those included that are not enabled; a range counts as one."""


class ListType(StrEnum):
    """What a list does with its addresses."""

    ALLOW = "ALLOW"  #: while there is one, nobody else may call
    BLOCK = "BLOCK"  #: they may not call, whatever allows them


@dataclass(frozen=True, slots=True)
class IpAccessList:
    """One list of a workspace."""

    id: str
    label: str
    list_type: ListType
    addresses: tuple[str, ...]
    """As they were given."""
    enabled: bool
    created_at: datetime
    created_by: int | None
    """A principal's number. None: it was gone before the list was made."""
    updated_at: datetime
    updated_by: int | None


@dataclass(frozen=True, slots=True)
class IpAccess:
    """Everything that decides from where a workspace may be reached."""

    enabled: bool
    """Whether the workspace uses its lists."""
    lists: tuple[IpAccessList, ...]


class LockedOut(InvalidState):
    """The change would shut out whoever asks for it. Databricks answers it with 400, unlike other wrong states."""

    http_status = 400

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.http_status


def check_addresses(addresses: Sequence[str]) -> tuple[str, ...]:
    """Return the addresses of a list.

    Raises InvalidParameter for one that is wrong or there twice, and for none; QuotaExceeded for too many.
    """
    if not addresses:
        raise InvalidParameter(
            "ip_addresses is missing: give at least one IPv4 or IPv6 address or CIDR range. To stop a list from "
            "having an effect, set enabled to false or delete it."
        )
    _require_room(len(addresses))
    seen: dict[Network, str] = {}
    for text in addresses:
        try:
            network = parse_network(text)
        except ValueError as error:
            raise InvalidParameter(f"ip_addresses: {error}.") from None
        if network in seen:
            raise InvalidParameter(f"ip_addresses: '{text}' is there twice, also as '{seen[network]}'.")
        seen[network] = text
    return tuple(addresses)


def published(workspace_id: str, access: IpAccess) -> WorkspaceIpAccess:
    """Return what gateways are told."""
    if not access.enabled:
        return WorkspaceIpAccess(workspace_id=workspace_id)
    return WorkspaceIpAccess(
        workspace_id=workspace_id,
        allow=_networks(access.lists, ListType.ALLOW),
        block=_networks(access.lists, ListType.BLOCK),
    )


def check_change(workspace_id: str, after: IpAccess, client: str | None) -> None:
    """Look at what a change makes of a workspace; ``client`` is the address that asks for it.

    Raises QuotaExceeded for too many addresses, LockedOut when that address could not call any more.
    """
    _require_room(sum(len(one.addresses) for one in after.lists))
    told = published(workspace_id, after)
    if not IpRules(told.allow, told.block).let_in(parse_address(client)):
        raise LockedOut(
            f"Your own address, {client or 'which is not known'}, would be blocked by the IP access lists of the "
            "workspace after this change. Add it to a list of type ALLOW and take it out of those of type BLOCK, or "
            "make the change from an address that stays allowed."
        )


def _require_room(count: int) -> None:
    if count > MAX_ADDRESSES:
        raise QuotaExceeded(
            f"The IP access lists of a workspace may have {MAX_ADDRESSES} addresses and CIDR ranges together; these "
            f"would have {count}."
        )


def _networks(lists: Iterable[IpAccessList], list_type: ListType) -> tuple[str, ...]:
    chosen = (one for one in lists if one.enabled and one.list_type is list_type)
    return tuple(sorted({str(parse_network(text)) for one in chosen for text in one.addresses}))
