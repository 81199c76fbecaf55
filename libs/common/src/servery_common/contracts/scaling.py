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


class GatewayLoad(Message, type="servery.gateway.load.v1"):
    """What one gateway saw in the last window; it is sent in each, also with nothing in it.

    In it are the served entities that had something to do, once more when they are idle again, and each of the others
    about once a minute: what a gateway does not mention is as it was.
    """

    gateway_id: str
    window_seconds: float
    entities: tuple[EntityLoad, ...] = ()


class ScaleRequest(Message, type="servery.scale.request.v1"):
    """The scaler wants this many replicas of a served entity, and says why."""

    endpoint_id: str
    served_entity_id: str
    desired_replicas: int
    reason: str


class ScaleAnswer(Message, type="servery.scale.answer.v1"):
    """What the controller made of it: clamped to the entity's range; False when the entity is gone."""

    accepted: bool
    desired_replicas: int = 0
