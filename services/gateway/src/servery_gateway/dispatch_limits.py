"""How patient the dispatcher is, with replicas and with requests."""

from dataclasses import dataclass

BUSY_REST = 0.025
"""Seconds a replica gets nothing after it refused as busy: other gateways fill its slots too."""
SILENT_REST = 1.0
"""Seconds a replica gets nothing after it was silent or draining; the route usually drops it by then."""
GONE_REST = 0.25
"""Seconds until a replica nobody listens for is tried again. Asking is cheap, the answer is immediate, and after a
restart of NATS agents are back a moment later than the gateway."""
REFUSED_REST = {"draining": SILENT_REST, "unknown": GONE_REST}
DEADLINE_GRANULARITY = 0.05
"""Seconds by which a deadline may be noticed late: a fraction of the margin that is taken off an endpoint's timeout."""
CANNOT_START_RETRY = 5
"""Seconds a client is told to wait when replicas cannot be started: the next tries come with growing pauses."""
ACCEPT_GRANULARITY = 0.02
WAIT_GRANULARITY = 0.05
MAX_SILENCES = 2
"""Attempts that may end in silence: the first one and one more."""
PROBE_AFTER = 1.0
"""Seconds after which an accepted request makes the dispatcher ask whether its replica is still there."""


@dataclass(slots=True)
class DispatchLimits:
    """How patient the dispatcher is, in seconds."""

    accept_timeout: float = 0.3
    replica_wait: float = 5.0
    max_queue_wait: float = 30.0
    max_queued_bytes: int = 128 * 1024 * 1024
    """Of the bodies that wait at one endpoint; not in seconds."""
