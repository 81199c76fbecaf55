"""Endpoints as the management API answers them: Databricks' shapes, letter for letter. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from servery_common.contracts.routes import RateLimit
from servery_common.contracts.states import ConfigUpdate, EndpointReady, Suspend
from servery_controller.domain.endpoint import (
    Config,
    ConfigPhase,
    Deployment,
    EmailNotifications,
    EntityPhase,
    Observation,
    ServedEntity,
)
from servery_controller.domain.lifecycle import CONFIG_UPDATE, DEPLOYMENT_STATE
from servery_controller.domain.permissions import PermissionLevel
from servery_controller.domain.replica_counts import replica_counts
from servery_controller.domain.settings_rules import Tags
from servery_controller.domain.sizes import DEFAULT_WORKLOAD_SIZE, SLOTS_PER_REPLICA

_SHOWN_AS_PENDING = (
    ConfigPhase.PENDING,
    ConfigPhase.ROLLING,
    ConfigPhase.FAILED,
    ConfigPhase.CANCELED,
)
_CREATOR_KIND = {"user": "User", "service_principal": "ServicePrincipal"}


def detailed(
    deployment: Deployment,
    host: str,
    level: PermissionLevel | None = PermissionLevel.CAN_MANAGE,
    seen: Observation | None = None,
) -> dict[str, Any]:
    """ServingEndpointDetailed, for a client that reached the gateway at ``host``.

    ``config`` is what gets traffic (or did, when the endpoint is stopped), ``pending_config`` what is on its way, or
    failed on it. ``level`` is the caller's; whoever may change the endpoint has CAN_MANAGE. ``seen``: the workers.
    """
    answer = _common(deployment, level)
    current, newest = deployment.active or deployment.stopped, deployment.newest
    if current is not None:
        answer["config"] = _config(deployment, current, seen)
    if newest is not None and newest.phase in _SHOWN_AS_PENDING:
        answer["pending_config"] = _config(deployment, newest, seen) | {
            "start_time": _millis(newest.created_at)
        }
    if deployment.endpoint.route_optimized:
        # No data_plane_info: clients would exchange their token for one of this endpoint, which no token needs here.
        answer["endpoint_url"] = (
            f"{host.rstrip('/')}/serving-endpoints/{deployment.endpoint.name}/invocations"
        )
    return answer


def listed(deployment: Deployment, level: PermissionLevel | None) -> dict[str, Any]:
    """One item of the list: the config holds only which entities are served."""
    answer = _common(deployment, level)
    shown = deployment.active or deployment.stopped or deployment.newest
    entities = deployment.entities_of(shown.version) if shown else ()
    answer["config"] = {
        "served_entities": [
            {
                "name": e.spec.name,
                "entity_name": e.spec.entity_name,
                "entity_version": e.spec.entity_version,
                "type": e.spec.entity_type,
            }
            for e in entities
        ],
        "served_models": [
            {
                "name": e.spec.name,
                "model_name": e.spec.entity_name,
                "model_version": e.spec.entity_version,
                "type": e.spec.entity_type,
            }
            for e in entities
        ],
    }
    return answer


def _common(deployment: Deployment, level: PermissionLevel | None) -> dict[str, Any]:
    endpoint = deployment.endpoint
    answer: dict[str, Any] = {
        "name": endpoint.name,
        "id": endpoint.id,
        "creator": endpoint.creator,
        "creator_display_name": endpoint.creator_display_name or endpoint.creator,
        "creator_kind": _CREATOR_KIND[endpoint.creator_kind],
        "creation_timestamp": _millis(endpoint.created_at),
        "last_updated_timestamp": _millis(endpoint.updated_at),
        "state": {
            "ready": _ready(deployment),
            "config_update": _config_update(deployment),
            "suspend": _suspend(deployment),
        },
        "tags": tags(endpoint.tags),
        "description": endpoint.description,
        "permission_level": level,
        "route_optimized": endpoint.route_optimized,
        # A custom model has neither: they tell foundation and external models apart.
        "task": None,
        "endpoint_type": None,
        "email_notifications": email_notifications(endpoint.email_notifications),
    }
    if endpoint.rate_limits:
        limits = rate_limits(endpoint.rate_limits)
        answer |= {"rate_limits": limits, "ai_gateway": {"rate_limits": limits}}
    if endpoint.budget_policy_id is not None:
        answer["budget_policy_id"] = endpoint.budget_policy_id
    return answer


def tags(given: Tags) -> list[dict[str, str]]:
    """``tags``."""
    return [{"key": key, "value": value} for key, value in given]


def rate_limits(limits: Sequence[RateLimit]) -> list[dict[str, Any]]:
    """``rate_limits``."""
    return [{"key": limit.key, "calls": limit.calls, "renewal_period": "minute"} for limit in limits]


def email_notifications(wanted: EmailNotifications) -> dict[str, list[str]]:
    """``email_notifications``."""
    return {
        "on_update_success": list(wanted.on_update_success),
        "on_update_failure": list(wanted.on_update_failure),
    }


def _suspend(deployment: Deployment) -> Suspend:
    stopped = deployment.stopped is not None and not deployment.updating
    return Suspend.SUSPENDED if stopped else Suspend.NOT_SUSPENDED


def _ready(deployment: Deployment) -> EndpointReady:
    active = deployment.active
    if active is None:
        return EndpointReady.NOT_READY
    entities = deployment.entities_of(active.version)
    ready = all(e.phase in (EntityPhase.READY, EntityPhase.IDLE) for e in entities)
    return EndpointReady.READY if ready else EndpointReady.NOT_READY


def _config_update(deployment: Deployment) -> ConfigUpdate:
    newest = deployment.newest
    return CONFIG_UPDATE[newest.phase] if newest else ConfigUpdate.NOT_UPDATING


def _config(deployment: Deployment, config: Config, seen: Observation | None) -> dict[str, Any]:
    served = [
        (e.spec, _served(e) | {"servery": _scaled(e, deployment, seen)})
        for e in deployment.entities_of(config.version)
    ]
    return {
        "served_entities": [
            {"entity_name": spec.entity_name, "entity_version": spec.entity_version} | answer
            for spec, answer in served
        ],
        "served_models": [
            {"model_name": spec.entity_name, "model_version": spec.entity_version} | answer
            for spec, answer in served
        ],
        "traffic_config": {
            "routes": [
                {
                    "served_model_name": r.served_entity_name,
                    "served_entity_name": r.served_entity_name,
                    "traffic_percentage": r.traffic_percentage,
                }
                for r in config.routes
            ]
        },
        "config_version": config.version,
    }


def _served(entity: ServedEntity) -> dict[str, Any]:
    spec = entity.spec
    answer: dict[str, Any] = {
        "name": spec.name,
        "id": entity.id,
        "type": spec.entity_type,
        "workload_type": spec.workload_type,
        "scale_to_zero_enabled": spec.scale_to_zero_enabled,
        "state": {
            "deployment": DEPLOYMENT_STATE[entity.phase],
            "deployment_state_message": entity.message,
        },
        "creator": entity.creator,
        "creation_timestamp": _millis(entity.created_at),
    }
    if spec.min_provisioned_concurrency is not None:
        answer["min_provisioned_concurrency"] = spec.min_provisioned_concurrency
        answer["max_provisioned_concurrency"] = spec.max_provisioned_concurrency
    else:
        answer["workload_size"] = spec.workload_size or DEFAULT_WORKLOAD_SIZE
    if spec.environment_vars:
        answer["environment_vars"] = dict(spec.environment_vars)
    if spec.instance_profile_arn:
        answer["instance_profile_arn"] = spec.instance_profile_arn
    return answer


def _scaled(entity: ServedEntity, deployment: Deployment, seen: Observation | None) -> dict[str, Any]:
    """Servery's own: what ``workload_size`` means here. Null where not every worker was heard of yet."""
    return {
        "slots_per_replica": SLOTS_PER_REPLICA,
        "min_replicas": entity.min_replicas,
        "max_replicas": entity.max_replicas,
        "desired_replicas": entity.desired_replicas,
        "ready_replicas": replica_counts(deployment, seen, entity.id).ready
        if seen and seen.complete
        else None,
    }


def _millis(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
