"""What a caller may do with an endpoint. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

from servery_common.contracts.access import Identity
from servery_common.errors import InvalidParameter, PermissionDenied
from servery_controller.domain import directory

GranteeKind = Literal["user", "group", "service_principal"]


class PermissionLevel(StrEnum):
    """Each level includes the ones before it."""

    CAN_VIEW = "CAN_VIEW"  #: get, list, metrics, logs
    CAN_QUERY = "CAN_QUERY"  #: score
    CAN_MANAGE = "CAN_MANAGE"  #: update, delete, grant

    def includes(self, wanted: "PermissionLevel") -> bool:
        """Whether whoever has this level has ``wanted`` too."""
        order = list(PermissionLevel)
        return order.index(self) >= order.index(wanted)


DESCRIPTIONS: Mapping[PermissionLevel, str] = MappingProxyType(
    {
        PermissionLevel.CAN_VIEW: "Can view the endpoint, its metrics and its logs",
        PermissionLevel.CAN_QUERY: "Can view and query the endpoint",
        PermissionLevel.CAN_MANAGE: "Can view, query, update and delete the endpoint and change its permissions",
    }
)


@dataclass(frozen=True, slots=True, order=True)
class Grantee:
    """Who is granted something, by a name that is unique in its workspace."""

    kind: GranteeKind
    name: str

    @classmethod
    def of(cls, caller: Identity) -> "Grantee":
        """The caller themselves."""
        return cls(caller.kind, caller.user_name)

    def __str__(self) -> str:
        """As in ``Identity.grantees``."""
        return f"{self.kind}:{self.name}"


Grants = Mapping[Grantee, PermissionLevel]
"""The direct grants on one endpoint: at most one level each."""

ADMINS = Grantee("group", directory.ADMINS)
"""Have CAN_MANAGE on every endpoint of their workspace, granted or not."""


def level_of(caller: Identity, grants: Grants) -> PermissionLevel | None:
    """Return the highest level of an endpoint's caller: their own, or one of their groups'. None: no permission."""
    if caller.admin:
        return PermissionLevel.CAN_MANAGE
    names = caller.grantees
    theirs = [level for grantee, level in grants.items() if str(grantee) in names]
    return max(theirs, key=list(PermissionLevel).index, default=None)


def require(caller: Identity, wanted: PermissionLevel, grants: Grants, endpoint_name: str) -> None:
    """Raise PermissionDenied unless the caller has ``wanted``; the message says what they have and whom to ask."""
    level = level_of(caller, grants)
    if level is not None and level.includes(wanted):
        return
    has = f"(they have {level})" if level is not None else "(they have no permission on it)"
    raise PermissionDenied(
        f"'{caller.user_name}' does not have {wanted} permission on endpoint '{endpoint_name}' {has}. Ask "
        "somebody who has CAN_MANAGE permission on it, such as its creator, or an administrator of the workspace, "
        "to grant it."
    )


def query_grantees(grants: Grants) -> tuple[str, ...]:
    """Return who may query, for the gateways, in an order that does not depend on when they were granted."""
    return tuple(sorted(str(g) for g, level in grants.items() if level.includes(PermissionLevel.CAN_QUERY)))


def collect(wanted: Iterable[tuple[Grantee, PermissionLevel]]) -> Grants:
    """Return the grants a caller asks for. Raises InvalidParameter when somebody is named twice."""
    grants: dict[Grantee, PermissionLevel] = {}
    named: set[tuple[str, str]] = set()
    for grantee, level in wanted:
        key = (grantee.kind, grantee.name.lower())
        if key in named:
            raise InvalidParameter(
                f"{describe(grantee)} is in access_control_list twice; give one level each."
            )
        named.add(key)
        grants[grantee] = level
    return grants


def check_still_manages(caller: Identity, grants: Grants) -> None:
    """Raise InvalidParameter when a caller who changes grants would not be able to change them back."""
    if level_of(caller, grants) is not PermissionLevel.CAN_MANAGE:
        raise InvalidParameter(
            f"This would take CAN_MANAGE from yourself ('{caller.user_name}'). Keep it for you or a group of yours, "
            "or ask an administrator of the workspace to take it."
        )


def describe(grantee: Grantee) -> str:
    """Return the grantee as people call it: ``User 'ann'``."""
    return f"{grantee.kind.replace('_', ' ').capitalize()} '{grantee.name}'"
