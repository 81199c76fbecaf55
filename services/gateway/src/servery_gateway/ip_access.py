"""Whether a workspace may be reached from the address a request came from. Pure.

On the way of every request: it costs one look-up where a workspace may be reached from everywhere, and one more where
it has IP access lists and the address called before.
"""

from collections.abc import Mapping
from typing import NamedTuple

from servery_common.contracts.ip_access import WorkspaceIpAccess
from servery_common.errors import PermissionDenied, Unavailable
from servery_common.ip_rules import MAX_ADDRESS_LENGTH, IpRules, parse_address
from servery_gateway.routing_table import Snapshot

FIELD = "ip_access"
"""Of the snapshot."""
MAX_DECISIONS = 16384
"""Addresses remembered, of all workspaces together. Beyond it all are forgotten: deciding again takes microseconds."""
NOT_KNOWN_YET = (
    "The gateway does not know yet from where the workspace may be reached. Try again in a moment."
)


class _Rules(NamedTuple):
    told: WorkspaceIpAccess
    rules: IpRules


class IpAccess:
    """Decides by the newest snapshot."""

    def __init__(self) -> None:
        self._told: Mapping[str, WorkspaceIpAccess] = {}
        self._known = False
        self._rules: dict[str, _Rules | None] = {}
        """Of workspaces that were called. None: everybody may call."""
        self._decided: dict[tuple[str, str], bool] = {}

    def update(self, snapshot: Snapshot) -> None:
        """Follow the snapshot: lists that were changed hold from the next request on."""
        self._told = snapshot.ip_access
        # Without a listing, an absent key says nothing: a gateway that starts must not be a hole.
        self._known = bool(snapshot.incarnations.get(FIELD))
        self._rules = {
            key: one
            for key, one in self._rules.items()
            if one is not None and one.told is self._told.get(key)
        }
        self._decided.clear()

    def require(self, workspace_id: str, client: str | None) -> None:
        """Let a request from this address in. Raises PermissionDenied; Unavailable before anything is known."""
        try:
            rules = self._rules[workspace_id]
        except KeyError:
            rules = self._begin(workspace_id)
        if rules is None:
            return
        allowed = None if client is None else self._decided.get((workspace_id, client))
        if allowed is None:
            allowed = self._decide(workspace_id, client, rules.rules)
        if not allowed:
            raise PermissionDenied(
                f"Source IP address: {(client or 'unknown')[:MAX_ADDRESS_LENGTH]} is blocked by the IP access lists of "
                f"workspace: {workspace_id}. Call from an address that they allow, or ask an administrator of the "
                "workspace to change them.",
                reason=FIELD,
            )

    def _begin(self, workspace_id: str) -> _Rules | None:
        if not self._known:
            raise Unavailable(NOT_KNOWN_YET)
        told = self._told.get(workspace_id)
        rules = None
        if told is not None and (told.allow or told.block):
            rules = _Rules(told, IpRules(told.allow, told.block))
        self._rules[workspace_id] = rules
        return rules

    def _decide(self, workspace_id: str, client: str | None, rules: IpRules) -> bool:
        address = parse_address(client)
        allowed = rules.let_in(address)
        # What is no address may be of any length, so it is not kept.
        if client is not None and address is not None:
            if len(self._decided) >= MAX_DECISIONS:
                self._decided.clear()
            self._decided[workspace_id, client] = allowed
        return allowed
