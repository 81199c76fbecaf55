"""How much may be asked for, and how gateways share it: quotas of workspaces, calls that are limited.

The controller keeps the KV bucket ``servery-quotas`` (key: workspace id). Several gateways keep to one quota, and to
one rate limit of an endpoint, by telling each other what came to them: a limit holds however requests are spread.
"""

from servery_common.contracts.message import Message, Value

DEFAULT_QPS = 200
"""Scoring requests a second that a workspace may send. Databricks' default."""
MAX_QPS = 1_000_000
"""The largest quota: more than any installation answers."""


class WorkspaceQuota(Message, type="servery.workspace_quota.v1"):
    """The quota of one workspace. Not in the bucket yet: ``DEFAULT_QPS``."""

    workspace_id: str
    qps: int
    """Scoring requests a second."""


class WorkspaceDemand(Value):
    """What one workspace asked of one gateway lately."""

    workspace_id: str
    demand: float
    """Requests a second, those that were refused too."""
    admitted: int
    """Requests let in since the report before."""
    level: float
    """Tokens in the workspace's bucket, which all gateways share, as this one knows it; below 0: owed."""


class GatewayDemand(Message, type="servery.gateway.demand.v1"):
    """What was asked of one gateway, several times a second. Only of workspaces that asked for something lately."""

    gateway_id: str
    workspaces: tuple[WorkspaceDemand, ...] = ()


class CallCount(Value):
    """Calls that a rate limit counts."""

    endpoint_id: str
    principal_id: str = ""
    """Who called; empty: counted for all callers together."""
    calls: int


class GatewayCalls(Message, type="servery.gateway.calls.v1"):
    """Calls one gateway let in since it told of calls before: they count in the others, too."""

    gateway_id: str
    counts: tuple[CallCount, ...] = ()
