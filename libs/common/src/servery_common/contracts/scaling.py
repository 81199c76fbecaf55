"""Load signals in, desired replica counts out."""

from servery_common.contracts.message import Message, Value


class EntityLoad(Value):
    """Demand for one served entity, as one gateway saw it during ``window_seconds``."""

    endpoint_id: str
    served_entity_id: str
    in_flight: float
    """Mean number of requests being worked on."""
    queued: float
    """Mean number of requests waiting for a slot or a replica."""
    requests: int
    """Requests that ended in the window."""
    service_seconds: float = 0.0
    """Mean time in a slot of those that ended in the window; 0 when none did."""


class GatewayLoad(Message, type="servery.gateway.load.v1"):
    """What one gateway saw in the last window; it is sent in each, also with nothing in it.

    In it are the served entities that had something to do, once more when they are idle again, and each of the others
    about once a minute: what a gateway does not mention is as it was.
    """

    gateway_id: str
    window_seconds: float
    entities: tuple[EntityLoad, ...] = ()


class HeldRequests(Value):
    """Requests that wait in one gateway for a served entity that has no replica."""

    endpoint_id: str
    served_entity_id: str
    held: int


class GatewayWake(Message, type="servery.gateway.wake.v1"):
    """Served entities at zero are asked for: sent at once, and each second again as long as requests are held.

    The controller sees to it that there is one replica, whatever the scaler does; the scaler decides whether that
    is enough.
    """

    gateway_id: str
    entities: tuple[HeldRequests, ...]


class ScaleRequest(Message, type="servery.scale.request.v1"):
    """The scaler wants this many replicas of a served entity, and says why."""

    endpoint_id: str
    served_entity_id: str
    desired_replicas: int
    reason: str
    before: int | None = None
    """The count it was decided from: with another one it is not taken, for the decision would be another, too."""
    seen: dict[str, float] = {}
    """What the decision was made of, by name: kept with it for whoever asks why."""


class ScaleAnswer(Message, type="servery.scale.answer.v1"):
    """What the controller made of it: clamped to the entity's range; False when the entity is gone."""

    accepted: bool
    desired_replicas: int = 0


class ExplainScaling(Message, type="servery.scaling.explain.v1"):
    """Ask the scaler what it sees of an endpoint now, and what it would decide."""

    endpoint_id: str


class EntityScaling(Value):
    """The scaler's last decision about one served entity, also when it changed nothing."""

    served_entity_id: str
    desired_replicas: int
    reason: str
    target_concurrency: float
    """Requests one replica should have at a time, as learned or pinned."""
    seen: dict[str, float] = {}
    decided_at_ms: int
    """Epoch milliseconds."""


class ScalingExplained(Message, type="servery.scaling.explained.v1"):
    """The answer to ExplainScaling; without served entities that were not decided on yet."""

    entities: tuple[EntityScaling, ...] = ()
