"""Calls about quotas of workspaces, for the commands people type."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from servery_local.access_client import SCIM, WORKSPACES, AccessClient

QUOTAS = "/api/2.0/servery/quotas"


class QuotaClient(AccessClient):
    """Calls about quotas. ``workspace`` is a name or an id; None is one's own workspace."""

    def quotas(self) -> list[dict[str, Any]]:
        """Return the quotas of all workspaces."""
        return self._json("GET", QUOTAS)["quotas"]

    def quota(self, workspace: str | None) -> dict[str, Any]:
        """Return the quota of a workspace."""
        return self._json("GET", self._path(workspace))

    def set_quota(self, workspace: str | None, name: str, value: int) -> dict[str, Any]:
        """Choose one of a workspace's quotas, by its name in the API."""
        return self._json("PUT", self._path(workspace), {name: value})

    def reset_quota(self, workspace: str | None, name: str) -> dict[str, Any]:
        """Give a workspace the default of one quota again."""
        return self._json("DELETE", f"{self._path(workspace)}?quota={name}")

    def _path(self, workspace: str | None) -> str:
        own: str = self._send("GET", f"{SCIM}/Me").headers["x-databricks-org-id"]
        chosen = own if workspace is None or workspace == own else self.workspace_id(workspace)
        return f"{WORKSPACES}/{quote(chosen, safe='')}/quota"
