"""Endpoints as the management API answers them: Databricks' shapes, letter for letter. Pure."""

from datetime import datetime
from typing import Any

from servery_common.contracts.states import ConfigUpdate, EndpointReady, Suspend
from servery_controller.domain.endpoint import Config, ConfigPhase, Deployment, EntityPhase, ServedEntity
from servery_controller.domain.lifecycle import CONFIG_UPDATE, DEPLOYMENT_STATE
from servery_controller.domain.permissions import PermissionLevel
from servery_controller.domain.sizes import DEFAULT_WORKLOAD_SIZE


def detailed(
    deployment: Deployment, level: PermissionLevel | None = PermissionLevel.CAN_MANAGE
) -> dict[str, Any]:
    """ServingEndpointDetailed. ``config`` is what gets traffic, ``pending_config`` what is (or failed) on its way.

    ``level`` is the caller's; whoever may change the endpoint has CAN_MANAGE.
    """
    answer = _common(deployment, level)
    active, newest = deployment.active, deployment.newest
    if active is not None:
        answer["config"] = _config(deployment, active)
    if newest is not None and newest.phase in (ConfigPhase.PENDING, ConfigPhase.FAILED, ConfigPhase.CANCELED):
        answer["pending_config"] = _config(deployment, newest) | {"start_time": _millis(newest.created_at)}
    return answer


def listed(deployment: Deployment, level: PermissionLevel | None) -> dict[str, Any]:
    """One item of the list: the config holds only which entities are served."""
    answer = _common(deployment, level)
    shown = deployment.active or deployment.newest
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
    return {
        "name": endpoint.name,
        "id": endpoint.id,
        "creator": endpoint.creator,
        "creator_display_name": endpoint.creator_display_name or endpoint.creator,
        "creator_kind": "User" if endpoint.creator_kind == "user" else "ServicePrincipal",
        "creation_timestamp": _millis(endpoint.created_at),
        "last_updated_timestamp": _millis(endpoint.updated_at),
        "state": {
            "ready": _ready(deployment),
            "config_update": _config_update(deployment),
            "suspend": Suspend.NOT_SUSPENDED,
        },
        "tags": [{"key": key, "value": value} for key, value in endpoint.tags],
        "description": endpoint.description,
        "permission_level": level,
        "route_optimized": endpoint.route_optimized,
    }


def _ready(deployment: Deployment) -> EndpointReady:
    active = deployment.active
    if active is None:
        return EndpointReady.NOT_READY
    entities = deployment.entities_of(active.version)
    ready = all(e.phase is EntityPhase.READY for e in entities)
    return EndpointReady.READY if ready else EndpointReady.NOT_READY


def _config_update(deployment: Deployment) -> ConfigUpdate:
    newest = deployment.newest
    return CONFIG_UPDATE[newest.phase] if newest else ConfigUpdate.NOT_UPDATING


def _config(deployment: Deployment, config: Config) -> dict[str, Any]:
    entities = deployment.entities_of(config.version)
    return {
        "served_entities": [
            {"entity_name": e.spec.entity_name, "entity_version": e.spec.entity_version} | _served(e)
            for e in entities
        ],
        "served_models": [
            {"model_name": e.spec.entity_name, "model_version": e.spec.entity_version} | _served(e)
            for e in entities
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


def _millis(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
