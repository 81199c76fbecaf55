"""What gateways measure of served entities: counts, and how long requests took.

A gateway counts from its start and tells its totals again and again, so that a signal that was lost is made up for by
the next one: every two seconds those of served entities that had a request in the last minute, about once a minute
those of the others. ``gateway_id`` names one life of a gateway: after a restart another id begins at zero.
"""

from servery_common.contracts.message import Message, Value

LATENCY_BUCKETS_MS = (
    1.0,
    2.5,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
)
"""Upper bounds of all latency histograms, in milliseconds; one more bucket holds what is above the last."""


class Histogram(Value):
    """Durations by size. ``counts`` has one number for each bound and one for what is above; not cumulative."""

    counts: tuple[int, ...] = (0,) * (len(LATENCY_BUCKETS_MS) + 1)
    sum_ms: float = 0.0


class RequestCounts(Value):
    """Requests that were answered, by the status the client got."""

    requests: int = 0
    """All of them, with those below."""
    client_errors: int = 0
    """4xx, also refusals: queue full, a rate limit."""
    server_errors: int = 0
    """5xx, also those of the platform: no replica, timed out."""


class EntityMetrics(Value):
    """One served entity in one gateway."""

    served_entity_id: str
    last_minute: RequestCounts
    answered: RequestCounts = RequestCounts()
    """Since the gateway began."""
    in_flight: int
    """Requests at replicas now."""
    queued: int
    """Requests that wait for a replica now."""
    latency: Histogram
    """From the request's headers to its answer. Since the gateway began, as all histograms."""
    queue_time: Histogram
    """From admission to the moment a request left for a replica; only of requests that did."""
    prediction: Histogram
    """What the model itself took, as measured around its ``predict``; only of requests that reached it."""


class EndpointRejections(Value):
    """Requests that one gateway answered with an error of its own."""

    endpoint_id: str
    """Empty: the caller or the endpoint was unknown."""
    counts: dict[str, int]
    """By reason, since the gateway began."""


class ShadowComparisons(Value):
    """Requests of which one served entity got a copy after another one had answered, since the gateway began."""

    endpoint_id: str
    served_entity_id: str
    """Who got the copies."""
    same: int = 0
    """Answers with the same status and the same JSON as the one the client got."""
    different: int = 0
    failed: int = 0
    """Sent, but not answered: timed out, the replica died."""
    skipped: int = 0
    """Not sent, for want of a free slot or because the gateway had enough to do."""
    latency: Histogram = Histogram()
    """Of copies that were answered, from the moment one left for its replica."""
    primary_latency: Histogram = Histogram()
    """The same of the requests they are copies of."""


class GatewayMetrics(Message, type="servery.gateway.metrics.v1"):
    """What one gateway measured. Long lists are sent in several messages."""

    gateway_id: str
    loop_lag_ms: float = 0.0
    """The latest its event loop did something since the last report: above 100 it is overloaded and refuses."""
    entities: tuple[EntityMetrics, ...] = ()
    rejections: tuple[EndpointRejections, ...] = ()
    """Of endpoints where something was refused since the last report, and of some others in turn."""
    shadows: tuple[ShadowComparisons, ...] = ()
    """Of served entities that were sent copies since the last report, and of some others in turn."""
