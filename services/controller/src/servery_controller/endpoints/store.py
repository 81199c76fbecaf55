"""All SQL of the controller: endpoints, configs, served entities, replicas.

Reads build the domain's values; writes by a reconcile step are guarded by the step's lock token, so the
result of a step that was overtaken is dropped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import uuid4

from asyncpg import Record, UniqueViolationError

from servery_common.contracts.builds import Artifacts
from servery_common.contracts.routes import RateLimit
from servery_common.errors import AlreadyExists
from servery_common.metering import count_stale_write
from servery_common.postgres.pool import Connection, Pool
from servery_controller.domain.endpoint import (
    Config,
    ConfigPhase,
    Deployment,
    EmailNotifications,
    Endpoint,
    EntityPhase,
    EntitySpec,
    Replica,
    RolloutStep,
    Route,
    ServedEntity,
)
from servery_controller.endpoints import endpoint_grants


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


async def insert_config(
    conn: Connection, endpoint_id: str, config: Config, entities: Sequence[ServedEntity]
) -> None:
    """Add a config version with its served entities."""
    await conn.execute(
        "INSERT INTO endpoint_configs (endpoint_id, version, phase, routes, created_at) VALUES ($1, $2, $3, $4, $5)",
        endpoint_id,
        config.version,
        config.phase,
        [asdict(route) for route in config.routes],
        config.created_at,
    )
    await conn.executemany(
        """INSERT INTO served_entities (id, endpoint_id, config_version, position, name, spec, min_replicas,
                                        max_replicas, desired_replicas, build_id, build_requested_at, phase,
                                        message, creator, creator_id, created_at, artifacts, adopts)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)""",
        [
            (
                e.id,
                endpoint_id,
                e.config_version,
                position,
                e.spec.name,
                {**asdict(e.spec), "environment_vars": dict(e.spec.environment_vars)},
                e.min_replicas,
                e.max_replicas,
                e.desired_replicas,
                e.build_id,
                e.build_requested_at,
                e.phase,
                e.message,
                e.creator,
                e.creator_id,
                e.created_at,
                e.artifacts.model_dump() if e.artifacts else None,
                e.adopts,
            )
            for position, e in enumerate(entities)
        ],
    )


async def next_config_version(conn: Connection, endpoint_id: str) -> int:
    """The version the next config gets, starting at 1."""
    newest: int | None = await conn.fetchval(
        "SELECT max(version) FROM endpoint_configs WHERE endpoint_id = $1", endpoint_id
    )
    return (newest or 0) + 1


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


async def all_replica_ids(pool: Pool) -> set[str]:
    """Ids of all replicas somebody decided to have."""
    return {row["id"] for row in await pool.fetch("SELECT id FROM replicas")}


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
            endpoint=_endpoint(row),
            configs=tuple(_config(c) for c in configs if c["endpoint_id"] == row["id"]),
            entities=tuple(_entity(e) for e in entities if e["endpoint_id"] == row["id"]),
            replicas=tuple(_replica(r) for r in replicas if r["endpoint_id"] == row["id"]),
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
    return _entity(row) if row else None


async def get_served_entity(pool: Pool, served_entity_id: str) -> tuple[str, ServedEntity] | None:
    """Return the workspace of a served entity, and the entity, by its id."""
    row = await pool.fetchrow(
        """SELECT e.*, p.workspace_id FROM served_entities e JOIN endpoints p ON p.id = e.endpoint_id
           WHERE e.id = $1""",
        served_entity_id,
    )
    return (row["workspace_id"], _entity(row)) if row else None


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


async def update_entity(conn: Connection, entity: ServedEntity) -> None:
    """Write a served entity's phase, message, artifacts and build.

    How many replicas it starts with is decided when it was built; from then on that is written by who scales it.
    """
    await conn.execute(
        """UPDATE served_entities
           SET phase = $2, message = $3, artifacts = $4, build_id = $6,
               desired_replicas = CASE WHEN phase = 'BUILDING' THEN $5 ELSE desired_replicas END
           WHERE id = $1""",
        entity.id,
        entity.phase,
        entity.message,
        entity.artifacts.model_dump() if entity.artifacts else None,
        entity.desired_replicas,
        entity.build_id,
    )


async def update_config_phase(
    conn: Connection,
    endpoint_id: str,
    version: int,
    phase: ConfigPhase,
    rollout: RolloutStep | None = None,
) -> None:
    """Write a config's phase, and how far its rollout is.

    A retired one starts nothing any more, so it forgets its environment variables.
    """
    if phase is ConfigPhase.RETIRED:
        await conn.execute(
            """UPDATE served_entities SET spec = jsonb_set(spec, '{environment_vars}', '{}')
               WHERE endpoint_id = $1 AND config_version = $2""",
            endpoint_id,
            version,
        )
    await conn.execute(
        "UPDATE endpoint_configs SET phase = $3, rollout = $4 WHERE endpoint_id = $1 AND version = $2",
        endpoint_id,
        version,
        phase,
        None if rollout is None else {"index": rollout.index, "began_at": rollout.began_at.isoformat()},
    )


async def build_requested_again(conn: Connection, served_entity_id: str, now: datetime) -> None:
    """Remember that a build was ordered once more, by the clock that judges how long ago that was."""
    await conn.execute(
        "UPDATE served_entities SET build_requested_at = $2 WHERE id = $1", served_entity_id, now
    )


async def adopt_replicas(conn: Connection, source_id: str, heir_id: str) -> None:
    """Let a served entity take over the replicas of another one, and how many there should be.

    The count is the row's: the scaler may have changed it since the step began.
    """
    await conn.execute(
        """UPDATE served_entities heir
           SET adopts = NULL,
               desired_replicas = least(greatest(source.desired_replicas, heir.min_replicas), heir.max_replicas)
           FROM served_entities source WHERE heir.id = $2 AND source.id = $1""",
        source_id,
        heir_id,
    )
    await conn.execute(
        "UPDATE replicas SET served_entity_id = $2 WHERE served_entity_id = $1 AND NOT stopping",
        source_id,
        heir_id,
    )


async def insert_replica(conn: Connection, replica: Replica) -> None:
    """Decide to have one more replica; the node it gets is written with the others'."""
    await conn.execute(
        "INSERT INTO replicas (id, served_entity_id, created_at) VALUES ($1, $2, $3)",
        replica.id,
        replica.served_entity_id,
        replica.created_at,
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


async def place_replica(conn: Connection, replica_id: str, node: str | None) -> None:
    """Decide where a replica belongs; None: its node never took it, decide again."""
    await conn.execute("UPDATE replicas SET node = $2 WHERE id = $1", replica_id, node)


async def mark_stopping(conn: Connection, replica_ids: Sequence[str]) -> None:
    """Decide to have these no longer."""
    await conn.execute("UPDATE replicas SET stopping = true WHERE id = ANY($1)", replica_ids)


async def delete_replicas(conn: Connection, replica_ids: Sequence[str]) -> None:
    """Forget replicas that have stopped."""
    await conn.execute("DELETE FROM replicas WHERE id = ANY($1)", replica_ids)


async def delete_endpoint(conn: Connection, endpoint_id: str) -> None:
    """Forget an endpoint of which nothing is left."""
    await conn.execute("DELETE FROM endpoints WHERE id = $1", endpoint_id)


def _endpoint(row: Record) -> Endpoint:
    return Endpoint(
        id=row["id"],
        workspace_id=row["workspace_id"],
        name=row["name"],
        creator=row["creator"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        generation=row["generation"],
        observed_generation=row["observed_generation"],
        deleted=row["deleted_at"] is not None,
        description=row["description"],
        tags=tuple((key, value) for key, value in row["tags"]),
        route_optimized=row["route_optimized"],
        timeout_seconds=row["timeout_seconds"],
        rate_limits=tuple(RateLimit(**limit) for limit in row["rate_limits"]),
        email_notifications=EmailNotifications(
            **{outcome: tuple(addresses) for outcome, addresses in row["email_notifications"].items()}
        ),
        budget_policy_id=row["budget_policy_id"],
        creator_kind=row["creator_kind"],
        creator_display_name=row["creator_display_name"],
    )


def _config(row: Record) -> Config:
    routes: list[dict[str, Any]] = row["routes"]
    return Config(
        version=row["version"],
        phase=ConfigPhase(row["phase"]),
        routes=tuple(Route(**route) for route in routes),
        created_at=row["created_at"],
        rollout=_rollout(row["rollout"]),
    )


def _rollout(stored: dict[str, Any] | None) -> RolloutStep | None:
    if stored is None:
        return None
    return RolloutStep(index=stored["index"], began_at=datetime.fromisoformat(stored["began_at"]))


def _entity(row: Record) -> ServedEntity:
    return ServedEntity(
        id=row["id"],
        config_version=row["config_version"],
        spec=EntitySpec(**row["spec"]),
        min_replicas=row["min_replicas"],
        max_replicas=row["max_replicas"],
        desired_replicas=row["desired_replicas"],
        build_id=row["build_id"],
        build_requested_at=row["build_requested_at"],
        artifacts=Artifacts.model_validate(row["artifacts"]) if row["artifacts"] else None,
        phase=EntityPhase(row["phase"]),
        message=row["message"],
        created_at=row["created_at"],
        creator=row["creator"],
        creator_id=row["creator_id"],
        adopts=row["adopts"],
    )


def _replica(row: Record) -> Replica:
    return Replica(
        id=row["id"],
        served_entity_id=row["served_entity_id"],
        node=row["node"],
        stopping=row["stopping"],
        created_at=row["created_at"],
    )
