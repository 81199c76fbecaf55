"""What SCIM requests ask for (RFC 7643, RFC 7644), as far as Databricks' workspace API goes. Pure.

Attribute names and operations are compared without regard to case, as the RFC says. Attributes that Servery has no
use for (``emails``, ``name``, ``entitlements``, ``roles``, ``externalId``) are accepted and dropped, so that
provisioning tools work; anything else that would be dropped is refused.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from servery_common.errors import InvalidParameter

DROPPED = frozenset({"emails", "name", "entitlements", "roles", "externalid", "schemas", "id", "meta"})

_FILTER = re.compile(r'\s*([A-Za-z.]+)\s+(eq|co|sw)\s+"((?:[^"\\]|\\.)*)"\s*', re.IGNORECASE)
_MEMBER_PATH = re.compile(r'members\[\s*value\s+eq\s+"([^"]*)"\s*\]', re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,18}")

Op = Literal["add", "remove", "replace"]


@dataclass(frozen=True, slots=True)
class PrincipalChange:
    """What to change of a user or service principal; None: nothing."""

    display_name: str | None = None
    active: bool | None = None
    name: str | None = None
    """The user name or application id the request repeats. It cannot be changed."""


@dataclass(frozen=True, slots=True)
class MemberChange:
    """One operation on the members of a group."""

    op: Op
    numbers: frozenset[int]


@dataclass(frozen=True, slots=True)
class GroupChange:
    """What to change of a group, in order."""

    name: str | None = None
    members: tuple[MemberChange, ...] = field(default=())

    def members_after(self, members: Collection[int]) -> frozenset[int]:
        """Return the members the group has afterwards."""
        now = frozenset(members)
        for change in self.members:
            match change.op:
                case "add":
                    now |= change.numbers
                case "remove":
                    now -= change.numbers
                case "replace":
                    now = change.numbers
        return now


@dataclass(frozen=True, slots=True)
class Filter:
    """``attribute op "value"``."""

    attribute: str
    op: Literal["eq", "co", "sw"]
    value: str

    def matches(self, value: str) -> bool:
        """Whether a value passes, without regard to case."""
        mine, wanted = value.lower(), self.value.lower()
        match self.op:
            case "eq":
                return mine == wanted
            case "co":
                return wanted in mine
            case "sw":
                return mine.startswith(wanted)


def parse_filter(text: str, attributes: Iterable[str]) -> Filter:
    """Return the filter. Raises InvalidParameter unless it is a simple one on one of ``attributes``."""
    found = _FILTER.fullmatch(text)
    known = {attribute.lower(): attribute for attribute in attributes}
    if found is None or found[1].lower() not in known:
        raise InvalidParameter(
            f"The filter {text[:100]!r} is not supported. Write one such as '{next(iter(known.values()))} eq \"x\"', "
            f"with one of the attributes {', '.join(known.values())} and one of the operators eq, co, sw."
        )
    op: Any = found[2].lower()
    return Filter(known[found[1].lower()], op, re.sub(r"\\(.)", r"\1", found[3]))


def parse_principal_patch(operations: Sequence[Mapping[str, Any]]) -> PrincipalChange:
    """Return what a PATCH of a user or service principal asks for. Raises InvalidParameter."""
    change = PrincipalChange()
    for operation in operations:
        op, attributes = _attributes(operation)
        for attribute, value in attributes.items():
            change = _principal_change(change, op, attribute, value)
    return change


def parse_group_patch(operations: Sequence[Mapping[str, Any]]) -> GroupChange:
    """Return what a PATCH of a group asks for. Raises InvalidParameter."""
    change = GroupChange()
    for operation in operations:
        path = str(operation.get("path") or "")
        if member := _MEMBER_PATH.fullmatch(path):
            if _op(operation) != "remove":
                raise InvalidParameter(f"The path {path!r} can only be removed.")
            change = _with_members(change, "remove", [{"value": member[1]}])
            continue
        op, attributes = _attributes(operation)
        for attribute, value in attributes.items():
            change = _group_change(change, op, attribute, value)
    return change


def member_numbers(value: Any) -> frozenset[int]:
    """Return the ids in ``[{"value": "1"}, …]``. Raises InvalidParameter."""
    items: list[Any] = value if isinstance(value, list) else [value]
    numbers: set[int] = set()
    for item in items:
        text = str(item.get("value", "")) if isinstance(item, dict) else str(item)
        if not _NUMBER.fullmatch(text):
            raise InvalidParameter(
                f'{text[:100]!r} is not an id of a member: write {{"value": "<id>"}} with the id of a user, '
                "service principal or group."
            )
        numbers.add(int(text))
    return frozenset(numbers)


def _principal_change(change: PrincipalChange, op: Op, attribute: str, value: Any) -> PrincipalChange:
    match attribute:
        case "active" if op != "remove":
            return replace(change, active=_boolean(value))
        case "displayname":
            return replace(change, display_name="" if op == "remove" else _text("displayName", value))
        case "username" | "applicationid" if op != "remove":
            return replace(change, name=_text(attribute, value))
        case "groups":
            raise InvalidParameter("Change memberships at the group: patch its 'members'.")
        case _ if attribute in DROPPED:
            return change
        case _:
            raise InvalidParameter(f"Cannot {op} the attribute '{attribute[:100]}'.")


def _group_change(change: GroupChange, op: Op, attribute: str, value: Any) -> GroupChange:
    match attribute:
        case "members":
            return _with_members(change, op, value)
        case "displayname" if op != "remove":
            return replace(change, name=_text("displayName", value))
        case "groups":
            raise InvalidParameter("Change memberships at the containing group: patch its 'members'.")
        case _ if attribute in DROPPED:
            return change
        case _:
            raise InvalidParameter(f"Cannot {op} the attribute '{attribute[:100]}'.")


def _with_members(change: GroupChange, op: Op, value: Any) -> GroupChange:
    if op == "remove" and not value:
        # "Remove members" without saying whom means all of them (RFC 7644, 3.5.2.2).
        step = MemberChange("replace", frozenset())
    else:
        step = MemberChange(op, member_numbers([] if value is None else value))
    return replace(change, members=(*change.members, step))


def _attributes(operation: Mapping[str, Any]) -> tuple[Op, dict[str, Any]]:
    """Return the operation and what it names: the attribute of its path, or those of its value."""
    op, path, value = _op(operation), operation.get("path"), operation.get("value")
    if path:
        return op, {re.split(r"[.\[]", str(path), maxsplit=1)[0].lower(): value}
    if not isinstance(value, dict):
        raise InvalidParameter("An operation without 'path' needs a 'value' that maps attributes to values.")
    return op, {str(key).lower(): item for key, item in value.items()}


def _op(operation: Mapping[str, Any]) -> Op:
    match str(operation.get("op", "")).lower():
        case "add":
            return "add"
        case "remove":
            return "remove"
        case "replace":
            return "replace"
        case other:
            raise InvalidParameter(f"Unknown operation {other[:100]!r}: use add, remove or replace.")


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    # databricks-sdk leaves out a value of False.
    raise InvalidParameter("'active' must be true or false; databricks-sdk sends the text 'false' reliably.")


def _text(attribute: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidParameter(f"'{attribute}' must be a text.")
    return value
