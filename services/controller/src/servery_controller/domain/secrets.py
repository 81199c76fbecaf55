"""Secrets as rules: names, limits, who may do what, which environment variables refer to one. Pure.

Limits are Databricks' (databricks-sdk, ``SecretsAPI``).
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from servery_common.contracts.access import Identity
from servery_common.errors import InvalidParameter, PermissionDenied

MAX_NAME_LENGTH = 128
MAX_VALUE_BYTES = 128 * 1024
MAX_SCOPES = 1000
MAX_SECRETS = 1000

_NAME = re.compile(r"[A-Za-z0-9_@./-]+")
_REFERENCE = re.compile(r"\{\{secrets/([A-Za-z0-9_@.-]+)/([A-Za-z0-9_@./-]+)\}\}")


class SecretPermission(StrEnum):
    """Each includes the ones before it."""

    READ = "READ"  #: read values, list keys
    WRITE = "WRITE"  #: put and delete secrets
    MANAGE = "MANAGE"  #: grant, delete the scope

    def includes(self, wanted: "SecretPermission") -> bool:
        """Whether whoever has this permission has ``wanted`` too."""
        order = list(SecretPermission)
        return order.index(self) >= order.index(wanted)


@dataclass(frozen=True, slots=True)
class SecretReference:
    """``{{secrets/scope/key}}``."""

    scope: str
    key: str

    def __str__(self) -> str:
        return f"{self.scope}/{self.key}"


def check_scope_name(name: str) -> None:
    """Raise InvalidParameter unless ``name`` may name a scope."""
    _check_name("scope name", name)


def check_key(key: str) -> None:
    """Raise InvalidParameter unless ``key`` may name a secret."""
    _check_name("secret key", key)


def check_value(value: bytes) -> None:
    """Raise InvalidParameter for a value that is too long. The message does not hold it."""
    if len(value) > MAX_VALUE_BYTES:
        raise InvalidParameter(
            f"The secret value has {len(value)} bytes; at most {MAX_VALUE_BYTES} (128 KB) are allowed."
        )


def check_allowed(
    caller: Identity, scope: str, granted: Mapping[str, SecretPermission], wanted: SecretPermission
) -> None:
    """Raise PermissionDenied unless what was ``granted`` gives the caller ``wanted``."""
    if not is_allowed(caller, granted, wanted):
        raise PermissionDenied(
            f"User '{caller.user_name}' does not have {wanted} permission on secret scope '{scope}'. "
            "Ask someone with MANAGE permission on it, or an administrator of the workspace."
        )


def is_allowed(caller: Identity, granted: Mapping[str, SecretPermission], wanted: SecretPermission) -> bool:
    """Whether the caller has ``wanted``, by themselves, through a group, or as a workspace administrator.

    ``granted`` is by grantee, as in ``Identity.grantees``.
    """
    if caller.admin:
        return True
    return any(granted[name].includes(wanted) for name in caller.grantees if name in granted)


def place_of(workspace_id: str, scope: str, key: str) -> str:
    """Where a secret is, as the context its value is sealed with. Names may hold ``/``: hence not joined by it."""
    return json.dumps(["secret", workspace_id, scope, key])


def references_of(variables: Mapping[str, str]) -> dict[str, SecretReference]:
    """The variables that refer to a secret, by name. Only the exact form does; everything else is plain text.

    The scope ends at the first slash; the rest is the key.
    """
    found = ((name, _REFERENCE.fullmatch(value)) for name, value in variables.items())
    return {name: SecretReference(match[1], match[2]) for name, match in found if match is not None}


def total_bytes(variables: Iterable[tuple[str, str]]) -> int:
    """How many bytes names and values have together."""
    return sum(len(name.encode()) + len(value.encode()) for name, value in variables)


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME_LENGTH:
        shown = name if len(name) <= 80 else f"{name[:80]}…"
        raise InvalidParameter(
            f"Invalid {what} '{shown}': use 1 to {MAX_NAME_LENGTH} letters, digits, '_', '@', '.', '/' and '-'."
        )
