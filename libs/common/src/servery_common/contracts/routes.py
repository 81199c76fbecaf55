"""The routing snapshot: all a gateway needs to score without asking anyone.

The controller writes one ``EndpointRoute`` per endpoint to the KV bucket ``servery-routes`` (key: endpoint
id). Last value wins; a deleted key means gone. Who may call at all: ``contracts.access``.
"""

from typing import Literal

from servery_common.contracts.message import Message, Value

RouteStatus = Literal["serving", "deploying", "failed", "stopped"]


class ReplicaRoute(Value):
    """A replica that may be sent requests."""

    replica_id: str
    slots: int
    """Requests it takes at a time."""


class ServedEntityRoute(Value):
    """One served entity of the active config."""

    served_entity_id: str
    name: str
    traffic_percentage: int
    replicas: tuple[ReplicaRoute, ...] = ()
    min_replicas: int = 1
    max_replicas: int = 1
    desired_replicas: int = 1
    """What the controller aims at now."""
    slots_per_replica: int = 4
    holds: bool = False
    """It was scaled to zero, or lost all replicas and others are starting: requests wake it, and are held until a
    replica is there or their time is over."""
    problem: str = ""
    """Why a replica could not be started, for people. Requests are not held for one then."""
    scale_to_zero_seconds: float = 1800.0
    """Without a request for so long it is scaled to zero, if ``min_replicas`` is 0."""
    target_concurrency: float | None = None
    """Requests one replica should have at a time, pinned by a person; None: learned."""
    shadow_percentage: int = 0
    """Share of the endpoint's requests that is sent here too, after another one answered; only to compare."""


class RateLimit(Value):
    """At most ``calls`` requests per minute, counted for the whole endpoint or for each caller."""

    key: Literal["endpoint", "user"] = "endpoint"
    calls: int


class EndpointRoute(Message, type="servery.route.v1"):
    """Where the requests of one endpoint go."""

    endpoint_id: str
    workspace_id: str
    name: str
    created_at_ms: int = 0
    """Epoch milliseconds. Of two endpoints with one name, the older one is just being deleted."""
    status: RouteStatus
    """``serving`` as long as a config is active, also during and after a failed update."""
    message: str = ""
    """Why it does not serve, for people."""
    served_entities: tuple[ServedEntityRoute, ...] = ()
    timeout_seconds: float = 60.0
    max_stream_seconds: float = 600.0
    """Longest a streamed answer may go on from its beginning. A replica that is stopped is given as long."""
    max_queued: int = 40
    """Requests that may wait for a slot in one gateway before it answers 429."""
    max_held: int = 1000
    """Requests that may wait in one gateway for the first replica of a served entity at zero."""
    query_grantees: tuple[str, ...] = ()
    """Who may query, as in ``Identity.grantees``; administrators of the workspace always may."""
    rate_limits: tuple[RateLimit, ...] = ()


class EndpointsChanged(Message, type="servery.endpoints.changed.v1"):
    """Somebody waits for the leading controller to tell gateways of what was changed about these endpoints."""

    endpoint_ids: tuple[str, ...]
