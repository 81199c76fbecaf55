"""Calls about who may call: workspaces, users and tokens, for the commands people type."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from servery_local.client import ApiClient
from servery_local.errors import LocalError

WORKSPACES = "/api/2.0/servery/workspaces"
SCIM = "/api/2.0/preview/scim/v2"
TOKENS = "/api/2.0/token"
ALL_TOKENS = "/api/2.0/token-management/tokens"


class AccessClient(ApiClient):
    """Calls about workspaces (for operators), users (for administrators) and tokens."""

    def create_workspace(self, name: str, admin_user: str, region: str) -> dict[str, Any]:
        """Make a workspace; the answer holds its administrator's token, this one time."""
        return self._json("POST", WORKSPACES, {"name": name, "admin_user": admin_user, "region": region})

    def workspaces(self) -> list[dict[str, Any]]:
        """Return all workspaces."""
        return self._json("GET", WORKSPACES)["workspaces"]

    def delete_workspace(self, name: str) -> None:
        """Delete a workspace by name or id."""
        self._json("DELETE", f"{WORKSPACES}/{self.workspace_id(name)}")

    def workspace_id(self, name: str) -> str:
        """Return the id of a workspace that is named by its name or id."""
        found = [w["workspace_id"] for w in self.workspaces() if name in (w["name"], w["workspace_id"])]
        if not found:
            raise LocalError(f"there is no workspace {name}")
        return found[0]

    def create_user(self, name: str, *, admin: bool) -> dict[str, Any]:
        """Make a user of the workspace, as an administrator if wanted."""
        groups = [{"value": self._find("Groups", "displayName", "admins")["id"]}] if admin else []
        return self._json("POST", f"{SCIM}/Users", {"userName": name, "groups": groups})

    def users(self) -> list[dict[str, Any]]:
        """Return the users of the workspace."""
        return self._json("GET", f"{SCIM}/Users")["Resources"]

    def delete_user(self, name: str) -> None:
        """Delete a user by name, with their tokens."""
        self._json("DELETE", f"{SCIM}/Users/{self._find('Users', 'userName', name)['id']}")

    def create_token(self, comment: str, lifetime_seconds: int | None) -> dict[str, Any]:
        """Make a token of one's own; its value is in the answer, this one time."""
        body: dict[str, Any] = {"comment": comment}
        if lifetime_seconds is not None:
            body["lifetime_seconds"] = lifetime_seconds
        return self._json("POST", f"{TOKENS}/create", body)

    def create_token_for(
        self, application_id: str, comment: str, lifetime_seconds: int | None
    ) -> dict[str, Any]:
        """Make a token of a service principal."""
        body: dict[str, Any] = {"application_id": application_id, "comment": comment}
        if lifetime_seconds is not None:
            body["lifetime_seconds"] = lifetime_seconds
        return self._json("POST", "/api/2.0/token-management/on-behalf-of/tokens", body)

    def tokens(self) -> list[dict[str, Any]]:
        """Return one's own tokens."""
        return self._json("GET", f"{TOKENS}/list")["token_infos"]

    def all_tokens(self) -> list[dict[str, Any]]:
        """Return the tokens of the whole workspace."""
        return self._json("GET", ALL_TOKENS)["token_infos"]

    def revoke_token(self, token_id: str, *, anybodys: bool) -> None:
        """Revoke one's own token, or anybody's of the workspace."""
        if anybodys:
            self._json("DELETE", f"{ALL_TOKENS}/{quote(token_id, safe='')}")
        else:
            self._json("POST", f"{TOKENS}/delete", {"token_id": token_id})

    def _find(self, collection: str, attribute: str, value: str) -> dict[str, Any]:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        query = quote(f'{attribute} eq "{escaped}"', safe="")
        found = self._json("GET", f"{SCIM}/{collection}?filter={query}")["Resources"]
        if not found:
            raise LocalError(f"the workspace has no {collection.lower().rstrip('s')} {value}")
        return found[0]
