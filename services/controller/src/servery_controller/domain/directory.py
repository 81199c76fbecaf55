"""Principals, groups and workspaces as values, and the rules they must follow. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from servery_common.contracts.access import PrincipalKind
from servery_common.errors import InvalidParameter

ADMINS = "admins"
USERS = "users"
SYSTEM_GROUPS = (ADMINS, USERS)
"""Every workspace has them. Members of ``admins`` administer it; every principal belongs to ``users``."""
MAX_NAME_LENGTH = 255

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Workspace:
    """A tenant: names of endpoints, principals and groups are unique within it."""

    id: str
    name: str
    region: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Principal:
    """A user or a service principal."""

    id: str
    number: int
    """How clients of the SCIM API name it."""
    workspace_id: str
    kind: PrincipalKind
    name: str
    """A user name, or an application id."""
    display_name: str
    active: bool
    operator: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Group:
    """A group of a workspace."""

    number: int
    workspace_id: str
    name: str

    @property
    def is_system(self) -> bool:
        """Whether Servery itself relies on it."""
        return self.name in SYSTEM_GROUPS


class MemberKind(StrEnum):
    """What may be a member of a group."""

    USER = "user"
    SERVICE_PRINCIPAL = "service_principal"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class Reference:
    """A member of a group, or a group that somebody is a direct member of."""

    number: int
    kind: MemberKind
    display: str


def check_name(what: str, name: str) -> str:
    """Return ``name`` without blanks around it. Raises InvalidParameter unless it may name a principal or group."""
    name = name.strip()
    if not name:
        raise InvalidParameter(f"{what} is missing: give one.")
    return check_text(what, name)


def check_text(what: str, name: str) -> str:
    """Return ``name``, which may be empty. Raises InvalidParameter when it is too long or not printable."""
    if len(name) > MAX_NAME_LENGTH or _UNPRINTABLE.search(name):
        raise InvalidParameter(
            f"{what} must have at most {MAX_NAME_LENGTH} characters, none of them a control character."
        )
    return name


def find_cycle(subgroups: Mapping[int, Iterable[int]]) -> list[int] | None:
    """Return the numbers of groups that contain each other in a circle, or None.

    ``subgroups`` maps a group to the groups that are its direct members.
    """
    finished: set[int] = set()
    for start in subgroups:
        path: list[int] = []
        # Each level of the walk: the groups still to enter there. Not recursive: nesting may be deep.
        levels = [[start]]
        while levels:
            if not levels[-1]:
                levels.pop()
                if path:
                    finished.add(path.pop())
                continue
            group = levels[-1].pop()
            if group in path:
                return path[path.index(group) :]
            if group in finished:
                continue
            path.append(group)
            levels.append(list(subgroups.get(group, ())))
    return None
