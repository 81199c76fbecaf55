"""Rows of the controller's tables as the domain's values."""

from datetime import datetime
from typing import Any

from asyncpg import Record

from servery_common.contracts.builds import Artifacts
from servery_common.contracts.routes import RateLimit
from servery_controller.domain.endpoint import (
    Config,
    ConfigPhase,
    EmailNotifications,
    Endpoint,
    EntityPhase,
    EntitySpec,
    Replica,
    RolloutStep,
    Route,
    ServedEntity,
)


def endpoint(row: Record) -> Endpoint:
    """Return the endpoint of a row of ``endpoints``."""
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


def config(row: Record) -> Config:
    """Return the config version of a row of ``endpoint_configs``."""
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


def served_entity(row: Record) -> ServedEntity:
    """Return the served entity of a row of ``served_entities``."""
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


def replica(row: Record) -> Replica:
    """Return the replica of a row of ``replicas``."""
    return Replica(
        id=row["id"],
        served_entity_id=row["served_entity_id"],
        node=row["node"],
        stopping=row["stopping"],
        created_at=row["created_at"],
    )
