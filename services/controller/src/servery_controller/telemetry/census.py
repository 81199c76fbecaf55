"""How many of everything there are, as Postgres knows it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import Metric

from servery_common.metric_families import gauge
from servery_common.postgres.pool import Pool

EndpointStates = ("serving", "updating", "update_failed", "failed", "stopped", "deleting")
ENTITY = ("workspace", "endpoint", "served_entity")

Names = tuple[str, str, str]
"""Workspace, endpoint, served entity."""

_ENDPOINTS = """
    SELECT state, count(*) AS endpoints FROM (
        SELECT CASE
            WHEN e.deleted_at IS NOT NULL THEN 'deleting'
            WHEN newest.phase IN ('PENDING', 'ROLLING') THEN 'updating'
            WHEN newest.phase = 'STOPPED' THEN 'stopped'
            WHEN newest.phase = 'ACTIVE' THEN 'serving'
            WHEN EXISTS (SELECT FROM endpoint_configs c WHERE c.endpoint_id = e.id AND c.phase = 'ACTIVE')
                THEN 'update_failed'
            WHEN EXISTS (SELECT FROM endpoint_configs c WHERE c.endpoint_id = e.id AND c.phase = 'STOPPED')
                THEN 'stopped'
            ELSE 'failed' END AS state
        FROM endpoints e LEFT JOIN LATERAL (
            SELECT c.phase FROM endpoint_configs c WHERE c.endpoint_id = e.id ORDER BY c.version DESC LIMIT 1
        ) newest ON true
    ) states GROUP BY state
"""
_ENTITIES = """
    SELECT p.workspace_id, p.name AS endpoint, e.name AS entity, sum(e.desired_replicas)::bigint AS desired
    FROM served_entities e
    JOIN endpoint_configs c ON c.endpoint_id = e.endpoint_id AND c.version = e.config_version
    JOIN endpoints p ON p.id = e.endpoint_id
    WHERE p.deleted_at IS NULL AND (
        c.phase IN ('ACTIVE', 'ROLLING')
        -- Beside an active config one that is on its way has no replicas of its own for a while.
        OR c.phase = 'PENDING' AND NOT EXISTS (
            SELECT FROM endpoint_configs a WHERE a.endpoint_id = p.id AND a.phase = 'ACTIVE')
    )
    GROUP BY 1, 2, 3
"""
_REPLICAS = """
    SELECT r.id, p.workspace_id, p.name AS endpoint, e.name AS entity
    FROM replicas r JOIN served_entities e ON e.id = r.served_entity_id JOIN endpoints p ON p.id = e.endpoint_id
"""
_OUTBOX = """
    SELECT owner, count(*) AS messages, extract(epoch FROM now() - min(created_at))::float8 AS age
    FROM outbox GROUP BY owner
"""
_NOTIFICATIONS = """
    SELECT sink, count(*) FILTER (WHERE given_up_at IS NULL) AS pending,
           count(*) FILTER (WHERE given_up_at IS NOT NULL) AS given_up
    FROM notifications GROUP BY sink
"""


@dataclass(frozen=True, slots=True)
class Census:
    """One count."""

    endpoints: Mapping[str, int]
    """By state."""
    desired: Mapping[Names, int]
    replicas: Mapping[str, Names]
    """Whose each replica is, by its id."""
    outbox: Mapping[str, tuple[int, float]]
    """Messages, and the seconds the oldest waits, by owner."""
    notifications: Mapping[str, tuple[int, int]]
    """Pending and given up, by sink."""


async def take_census(pool: Pool) -> Census:
    """Count. Raises what the database raises."""
    async with pool.acquire() as conn:
        endpoints = await conn.fetch(_ENDPOINTS)
        entities = await conn.fetch(_ENTITIES)
        replicas = await conn.fetch(_REPLICAS)
        outbox = await conn.fetch(_OUTBOX)
        notifications = await conn.fetch(_NOTIFICATIONS)
    return Census(
        endpoints={row["state"]: row["endpoints"] for row in endpoints},
        desired={(row["workspace_id"], row["endpoint"], row["entity"]): row["desired"] for row in entities},
        replicas={row["id"]: (row["workspace_id"], row["endpoint"], row["entity"]) for row in replicas},
        outbox={row["owner"]: (row["messages"], row["age"]) for row in outbox},
        notifications={row["sink"]: (row["pending"], row["given_up"]) for row in notifications},
    )


def present_census(census: Census) -> Iterator[Metric]:
    """Return it as Prometheus has it."""
    yield gauge(
        "servery_controller_endpoints",
        "Endpoints by state.",
        ("state",),
        (((state,), census.endpoints.get(state, 0)) for state in EndpointStates),
    )
    yield gauge(
        "servery_controller_replicas_desired",
        "Replicas that a served entity should have.",
        ENTITY,
        census.desired.items(),
    )
    owners = ("controller", "builder")
    yield gauge(
        "servery_controller_outbox_messages",
        "Messages of committed transactions that were not sent yet.",
        ("owner",),
        (((owner,), census.outbox.get(owner, (0, 0.0))[0]) for owner in owners),
    )
    yield gauge(
        "servery_controller_outbox_oldest_seconds",
        "How long the oldest of them has waited.",
        ("owner",),
        (((owner,), census.outbox.get(owner, (0, 0.0))[1]) for owner in owners),
    )
    yield gauge(
        "servery_controller_notifications_pending",
        "Notifications that wait to be delivered.",
        ("sink",),
        (((sink,), census.notifications.get(sink, (0, 0))[0]) for sink in ("email", "webhook")),
    )
