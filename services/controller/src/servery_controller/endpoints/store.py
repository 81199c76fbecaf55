"""The SQL of endpoints: adding, loading whole deployments, and claiming them for a reconcile step.

What is written of configs and served entities is in ``config_store``, of replicas in ``replica_store``. Reads build the
domain's values (``rows``); writes by a reconcile step are guarded by the step's lock token, so the result of a step
that was overtaken is dropped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from uuid import uuid4

from asyncpg import UniqueViolationError

from servery_common.errors import AlreadyExists
from servery_common.metering import count_stale_write
from servery_common.postgres.pool import Connection, Pool
from servery_controller.domain.endpoint import (
    Deployment,
    Endpoint,
    ServedEntity,
)
from servery_controller.endpoints import endpoint_grants, rows


async def insert_endpoint(conn: Connection, endpoint: Endpoint) -> None:
    """Add an endpoint. Raises AlreadyExists when its name is taken in its workspace."""
    try:
        await conn.execute(
            """INSERT INTO endpoints (id, workspace_id, name, creator, description, tags, route_optimized,
                                      timeout_seconds, created_at, updated_at, rate_limits,
                                      email_notifications, budget_policy_id, creator_kind,
                                      creator_display_name)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $11, $12, $13, $14)""",
            endpoint.id,
            endpoint.workspace_id,
            endpoint.name,
            endpoint.creator,
            endpoint.description,
            [list(tag) for tag in endpoint.tags],
            endpoint.route_optimized,
            endpoint.timeout_seconds,
            endpoint.created_at,
            [limit.model_dump() for limit in endpoint.rate_limits],
            asdict(endpoint.email_notifications),
            endpoint.budget_policy_id,
            endpoint.creator_kind,
            endpoint.creator_display_name,
        )
    except UniqueViolationError:
        raise AlreadyExists(
            f"Endpoint with name '{endpoint.name}' already exists. Choose another name, or update its config."
        ) from None


async def lock_endpoint(conn: Connection, workspace_id: str, name: str) -> str | None:
    """Return the id of a live endpoint and hold its row until the transaction ends."""
    return await conn.fetchval(
        """SELECT id FROM endpoints WHERE workspace_id = $1 AND name = $2 AND deleted_at IS NULL
           FOR NO KEY UPDATE""",
        workspace_id,
        name,
    )


async def touch_endpoint(conn: Connection, endpoint_id: str) -> int:
    """A person changed the endpoint: make it due and return its new generation."""
    generation: int | None = await conn.fetchval(
        """UPDATE endpoints SET generation = generation + 1, updated_at = now(), due_at = now() WHERE id = $1
           RETURNING generation""",
        endpoint_id,
    )
    assert generation is not None, "callers hold the row"
    return generation


async def all_observed(pool: Pool, generations: Mapping[str, int]) -> bool:
    """Whether a reconcile step has seen each endpoint at this generation or a later one, or it is gone."""
    return not await pool.fetchval(
        """SELECT EXISTS (SELECT 1 FROM endpoints e
                          JOIN unnest($1::text[], $2::bigint[]) AS wanted (id, generation) ON wanted.id = e.id
                          WHERE e.observed_generation < wanted.generation)""",
        list(generations.keys()),
        list(generations.values()),
    )


async def mark_deleted(conn: Connection, endpoint_id: str) -> None:
    """Free the name; the reconciler frees the rest."""
    await conn.execute(
        """UPDATE endpoints SET deleted_at = now(), generation = generation + 1, updated_at = now(), due_at = now()
           WHERE id = $1""",
        endpoint_id,
    )


async def find_endpoint(conn: Connection | Pool, workspace_id: str, name: str) -> str | None:
    """Return the id of a live endpoint."""
    return await conn.fetchval(
        "SELECT id FROM endpoints WHERE workspace_id = $1 AND name = $2 AND deleted_at IS NULL",
        workspace_id,
        name,
    )


async def endpoint_of_build(pool: Pool, build_id: str) -> str | None:
    """Return the endpoint a build is for."""
    return await pool.fetchval("SELECT endpoint_id FROM served_entities WHERE build_id = $1", build_id)


async def all_endpoint_ids(pool: Pool) -> list[str]:
    """Ids of all endpoints, also those being deleted."""
    return [row["id"] for row in await pool.fetch("SELECT id FROM endpoints")]


async def load_deployments(conn: Connection | Pool, endpoint_ids: Sequence[str]) -> dict[str, Deployment]:
    """Load endpoints by id with the configs that still matter: all but retired ones without replicas.

    One view of all tables: given a pool, in a transaction of its own.
    """
    if isinstance(conn, Pool):
        async with (
            conn.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            return await load_deployments(connection, endpoint_ids)
    endpoints = await conn.fetch("SELECT * FROM endpoints WHERE id = ANY($1)", endpoint_ids)
    configs = await conn.fetch(
        """SELECT * FROM endpoint_configs c WHERE endpoint_id = ANY($1) AND (phase <> 'RETIRED' OR EXISTS (
               SELECT 1 FROM served_entities e JOIN replicas r ON r.served_entity_id = e.id
               WHERE e.endpoint_id = c.endpoint_id AND e.config_version = c.version))
           ORDER BY version""",
        endpoint_ids,
    )
    entities = await conn.fetch(
        """SELECT e.* FROM served_entities e
           JOIN unnest($1::text[], $2::int[]) AS wanted (endpoint_id, version)
             ON e.endpoint_id = wanted.endpoint_id AND e.config_version = wanted.version
           ORDER BY config_version, position""",
        [c["endpoint_id"] for c in configs],
        [c["version"] for c in configs],
    )
    replicas = await conn.fetch(
        """SELECT r.*, e.endpoint_id FROM replicas r JOIN served_entities e ON e.id = r.served_entity_id
           WHERE e.endpoint_id = ANY($1) ORDER BY r.created_at, r.id""",
        endpoint_ids,
    )
    grants = await endpoint_grants.load(conn, endpoint_ids)
    return {
        row["id"]: Deployment(
            endpoint=rows.endpoint(row),
            configs=tuple(rows.config(c) for c in configs if c["endpoint_id"] == row["id"]),
            entities=tuple(rows.served_entity(e) for e in entities if e["endpoint_id"] == row["id"]),
            replicas=tuple(rows.replica(r) for r in replicas if r["endpoint_id"] == row["id"]),
            grants=grants[row["id"]],
        )
        for row in endpoints
    }


async def find_served_entity(
    pool: Pool, endpoint_id: str, name: str, config_version: int | None
) -> ServedEntity | None:
    """Return a served entity by its name: of one config version, or the newest that has it."""
    row = await pool.fetchrow(
        """SELECT * FROM served_entities
           WHERE endpoint_id = $1 AND name = $2 AND ($3::int IS NULL OR config_version = $3)
           ORDER BY config_version DESC LIMIT 1""",
        endpoint_id,
        name,
        config_version,
    )
    return rows.served_entity(row) if row else None


async def get_served_entity(pool: Pool, served_entity_id: str) -> tuple[str, ServedEntity] | None:
    """Return the workspace of a served entity, and the entity, by its id."""
    row = await pool.fetchrow(
        """SELECT e.*, p.workspace_id FROM served_entities e JOIN endpoints p ON p.id = e.endpoint_id
           WHERE e.id = $1""",
        served_entity_id,
    )
    return (row["workspace_id"], rows.served_entity(row)) if row else None


async def claim_due(
    conn: Connection | Pool, hints: Sequence[str], *, limit: int, lease_seconds: float
) -> list[tuple[str, str]]:
    """Take endpoints that are due or hinted at. Returns (endpoint id, lock token) pairs."""
    token = uuid4().hex
    rows = await conn.fetch(
        """UPDATE endpoints
           SET lock_token = $1, lock_expires_at = now() + make_interval(secs => $2),
               due_at = now() + make_interval(secs => $2)
           WHERE id IN (SELECT id FROM endpoints
                        WHERE (due_at <= now() OR id = ANY($3))
                          AND (lock_expires_at IS NULL OR lock_expires_at < now())
                        ORDER BY due_at LIMIT $4 FOR UPDATE SKIP LOCKED)
           RETURNING id""",
        token,
        lease_seconds,
        list(hints),
        limit,
    )
    return [(row["id"], token) for row in rows]


async def drop_claims(conn: Connection) -> None:
    """End all claims: steps that are still under way write nothing any more."""
    await conn.execute(
        "UPDATE endpoints SET lock_token = NULL, lock_expires_at = NULL WHERE lock_token IS NOT NULL"
    )


async def still_owned(conn: Connection, endpoint_id: str, lock_token: str, generation: int) -> bool:
    """Whether this step still holds its claim and nobody changed the endpoint since it was loaded.

    Holds the row until the transaction ends if so.
    """
    row = await conn.fetchval(
        "SELECT 1 FROM endpoints WHERE id = $1 AND lock_token = $2 AND generation = $3 FOR UPDATE",
        endpoint_id,
        lock_token,
        generation,
    )
    if row is None:
        count_stale_write("claim")
    return row is not None


async def release(
    conn: Connection | Pool,
    endpoint_id: str,
    lock_token: str,
    *,
    generation: int | None,
    look_again_seconds: float,
) -> None:
    """End a step. Whoever made the endpoint due since it was claimed gets another step at once."""
    await conn.execute(
        """UPDATE endpoints
           SET lock_token = NULL, lock_expires_at = NULL,
               observed_generation = coalesce($3, observed_generation),
               due_at = CASE WHEN due_at <= now() THEN due_at ELSE now() + make_interval(secs => $4) END
           WHERE id = $1 AND lock_token = $2""",
        endpoint_id,
        lock_token,
        generation,
        look_again_seconds,
    )


async def builds_in_use(pool: Pool) -> list[str]:
    """Return the builds that endpoints serve, serve again when they are started, or wait for."""
    rows = await pool.fetch(
        """SELECT DISTINCT s.build_id FROM served_entities s
           JOIN endpoint_configs c ON c.endpoint_id = s.endpoint_id AND c.version = s.config_version
           JOIN endpoints p ON p.id = s.endpoint_id
           WHERE (p.deleted_at IS NULL AND c.phase IN ('PENDING', 'ROLLING', 'ACTIVE', 'STOPPED'))
              OR EXISTS (SELECT FROM replicas r WHERE r.served_entity_id = s.id)"""
    )
    return [row["build_id"] for row in rows]


async def delete_endpoint(conn: Connection, endpoint_id: str) -> None:
    """Forget an endpoint of which nothing is left."""
    await conn.execute("DELETE FROM endpoints WHERE id = $1", endpoint_id)
