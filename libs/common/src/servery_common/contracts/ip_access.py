"""From where a workspace may be reached, as gateways are told.

The controller keeps the KV bucket ``servery-ip-access`` (key: workspace id). Every workspace is there, also those that
may be reached from everywhere: a gateway that has seen the bucket knows all restrictions there are.
"""

from servery_common.contracts.message import Message


class WorkspaceIpAccess(Message, type="servery.ip_access.v1"):
    """The addresses of a workspace's enabled IP access lists; none while the workspace does not use them."""

    workspace_id: str
    allow: tuple[str, ...] = ()
    """Networks in CIDR notation. Not empty: nobody else may call."""
    block: tuple[str, ...] = ()
    """Networks that may not call, whatever ``allow`` holds."""
