"""Quotas of workspaces: so many scoring requests a second, over all gateways together (``shared_quota``).

In memory are the workspaces that asked for something lately, here or at another gateway.
"""

from collections.abc import Callable, Mapping
from time import monotonic

from servery_common.contracts.quotas import DEFAULT_QPS, GatewayDemand, WorkspaceDemand, WorkspaceQuota
from servery_common.errors import RequestLimitExceeded
from servery_gateway.routing_table import Snapshot
from servery_gateway.shared_quota import Report, SharedQuota


class WorkspaceQuotas:
    """Decides, before a byte of the body is read, whether a workspace may send one more request."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._set: Mapping[str, WorkspaceQuota] = {}
        self._active: dict[str, SharedQuota] = {}

    def update(self, snapshot: Snapshot) -> None:
        """Follow the snapshot: a quota that was changed holds from the next request on."""
        self._set = snapshot.quotas
        self._active = {key: one for key, one in self._active.items() if one.qps == self._qps(key)}

    def admit(self, workspace_id: str) -> None:
        """Let a request in. Raises RequestLimitExceeded, with the seconds until there is room."""
        now = self._now()
        quota = self._active.get(workspace_id)
        if quota is None:
            quota = self._begin(workspace_id, now)
        if not quota.admit(now):
            raise RequestLimitExceeded(
                f"Workspace {workspace_id} may send {quota.qps} scoring requests per second. Send fewer, or ask an "
                "operator of the installation to raise its quota: "
                f"`servery quota set qps=N --workspace {workspace_id}`.",
                retry_after=quota.retry_after(now),
                reason="quota",
            )

    def give_back(self, workspace_id: str) -> None:
        """The request let in just now was refused for another reason: it takes nothing of the quota."""
        self._active[workspace_id].give_back()

    def hear(self, told: GatewayDemand) -> None:
        """Take in what came to another gateway."""
        now = self._now()
        for one in told.workspaces:
            quota = self._active.get(one.workspace_id) or self._begin(one.workspace_id, now)
            quota.hear(told.gateway_id, Report(one.demand, one.admitted, one.level), now)

    def settle(self, *, alone: bool) -> list[WorkspaceDemand]:
        """End a round and return what the other gateways should be told; to be called every ``ROUND`` seconds.

        ``alone``: nobody can be told or heard at present.
        """
        now = self._now()
        told: list[WorkspaceDemand] = []
        for workspace_id, quota in list(self._active.items()):
            report = quota.settle(now, alone=alone)
            if report is not None:
                told.append(
                    WorkspaceDemand(
                        workspace_id=workspace_id,
                        demand=round(report.demand, 3),
                        admitted=report.admitted,
                        level=round(report.level, 3),
                    )
                )
            elif quota.forgettable(now):
                del self._active[workspace_id]
        return told

    @property
    def active(self) -> int:
        """How many workspaces asked for something lately."""
        return len(self._active)

    def _begin(self, workspace_id: str, now: float) -> SharedQuota:
        quota = self._active[workspace_id] = SharedQuota(self._qps(workspace_id), now)
        return quota

    def _qps(self, workspace_id: str) -> int:
        known = self._set.get(workspace_id)
        return known.qps if known else DEFAULT_QPS
