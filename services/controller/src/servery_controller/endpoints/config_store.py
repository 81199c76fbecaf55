"""The SQL that writes config versions and their served entities."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from servery_common.postgres.pool import Connection
from servery_controller.domain.endpoint import Config, ConfigPhase, RolloutStep, ServedEntity


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


async def build_requested_again(conn: Connection, served_entity_id: str, now: datetime) -> None:
    """Remember that a build was ordered once more, by the clock that judges how long ago that was."""
    await conn.execute(
        "UPDATE served_entities SET build_requested_at = $2 WHERE id = $1", served_entity_id, now
    )
