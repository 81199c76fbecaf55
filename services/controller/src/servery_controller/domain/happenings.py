"""What people are told of: the events of an endpoint and the notices of how an update ended. Pure.

Both are derived from what a transaction changes, and written in that transaction: nothing happens untold, and
nothing is told that did not happen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from servery_common.contracts.states import ConfigUpdate
from servery_controller.domain.endpoint import (
    Config,
    ConfigPhase,
    Deployment,
    EntityPhase,
    ServedEntity,
)
from servery_controller.domain.endpoint_options import options_of
from servery_controller.domain.lifecycle import CONFIG_UPDATE
from servery_controller.domain.planning import Plan
from servery_controller.domain.rollout import share_of


class EventType(StrEnum):
    """What an event is about."""

    ENDPOINT_CREATION = "ENDPOINT_CREATION_EVENT"
    ENDPOINT_UPDATE = "ENDPOINT_UPDATE_EVENT"
    ENDPOINT_STOP = "ENDPOINT_STOP_EVENT"
    ENDPOINT_START = "ENDPOINT_START_EVENT"
    CONTAINER = "SERVED_ENTITY_CONTAINER_EVENT"  #: the environment of a served entity is being made
    SERVED_ENTITY = "SERVED_ENTITY_DEPLOYMENT_EVENT"  #: its replicas
    SCALING = "SERVED_ENTITY_SCALING_EVENT"  #: how many replicas it should have; Servery's own


class EventStatus(StrEnum):
    """How far it is."""

    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


@dataclass(frozen=True, slots=True)
class EndpointEvent:
    """One thing that happened to an endpoint."""

    type: EventType
    status: EventStatus
    message: str
    config_version: int | None = None
    served_entity_name: str | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """How an update ended, for those who asked to be told."""

    event: str
    """``endpoint.update_succeeded`` or ``endpoint.update_failed``."""
    workspace_id: str
    endpoint_id: str
    endpoint: str
    config_version: int
    state: ConfigUpdate
    message: str
    recipients: tuple[str, ...]


def events_of(
    before: Deployment, step: Plan, begun: Mapping[int, EventType] = MappingProxyType({})
) -> tuple[EndpointEvent, ...]:
    """The events of one reconcile step on the deployment as it was before.

    ``begun`` says as what the deployments of config versions began, where that was not an update: they end as that.
    """
    entities = {e.id: e for e in before.entities}
    told = [_entity_event(entities[e.id].phase, e) for e in step.entities]
    told += [_config_event(before, step, config, begun) for config in step.configs]
    return tuple(event for event in told if event is not None)


def notices_of(before: Deployment, step: Plan) -> tuple[Notice, ...]:
    """The notices of one reconcile step; only for those outcomes that somebody wants to be told of."""
    endpoint = before.endpoint
    found: list[Notice] = []
    for config in step.configs:
        match config.phase:
            case ConfigPhase.ACTIVE:
                name, recipients = "succeeded", endpoint.email_notifications.on_update_success
                message = f"Config version {config.version} is active."
            case ConfigPhase.FAILED:
                name, recipients = "failed", endpoint.email_notifications.on_update_failure
                message = _failed_after(before, step, config)
            case _:
                continue
        if recipients:
            found.append(
                Notice(
                    event=f"endpoint.update_{name}",
                    workspace_id=endpoint.workspace_id,
                    endpoint_id=endpoint.id,
                    endpoint=endpoint.name,
                    config_version=config.version,
                    state=CONFIG_UPDATE[config.phase],
                    message=message,
                    recipients=recipients,
                )
            )
    return tuple(found)


def _entity_event(before: EntityPhase, entity: ServedEntity) -> EndpointEvent | None:
    if entity.phase is before:
        return None
    match before, entity.phase:
        case EntityPhase.BUILDING, EntityPhase.STARTING:
            kind, status = EventType.CONTAINER, EventStatus.SUCCEEDED
            message = "Container image creation finished successfully."
        case EntityPhase.BUILDING, EntityPhase.FAILED:
            kind, status = EventType.CONTAINER, EventStatus.FAILED
            message = f"Container image creation failed. {entity.message}"
        case _, EntityPhase.IDLE:
            if before is not EntityPhase.STARTING:
                return None  # the decision to scale it is an event
            kind, status = EventType.SERVED_ENTITY, EventStatus.SUCCEEDED
            message = "The served entity is ready: it is at zero, and a request wakes it."
        case EntityPhase.IDLE, EntityPhase.READY:
            kind, status = EventType.SERVED_ENTITY, EventStatus.SUCCEEDED
            message = "The served entity was woken: a replica takes requests."
        case EntityPhase.STARTING, EntityPhase.READY:
            kind, status = EventType.SERVED_ENTITY, EventStatus.SUCCEEDED
            message = "The served entity is ready: its replicas take requests."
        case EntityPhase.RECOVERING, EntityPhase.READY:
            kind, status = EventType.SERVED_ENTITY, EventStatus.SUCCEEDED
            message = "The served entity has recovered: a replica takes requests again."
        case _, EntityPhase.RECOVERING:
            kind, status, message = EventType.SERVED_ENTITY, EventStatus.IN_PROGRESS, entity.message
        case _, EntityPhase.FAILED:
            kind, status, message = EventType.SERVED_ENTITY, EventStatus.FAILED, entity.message
        case _:  # aborted: the event of its config says why
            return None
    return EndpointEvent(kind, status, message, entity.config_version, entity.spec.name)


def _config_event(
    before: Deployment, step: Plan, config: Config, begun: Mapping[int, EventType]
) -> EndpointEvent | None:
    kind = begun.get(config.version, EventType.ENDPOINT_UPDATE)
    match config.phase:
        case ConfigPhase.ACTIVE:
            status, message = EventStatus.SUCCEEDED, f"Config version {config.version} is active."
        case ConfigPhase.FAILED:
            status = EventStatus.FAILED
            what = "The start with" if kind is EventType.ENDPOINT_START else "The update to"
            message = f"{what} config version {config.version} failed. {_failed_after(before, step, config)}"
        case ConfigPhase.ROLLING:
            status, share = (
                EventStatus.IN_PROGRESS,
                share_of(config, options_of(before.endpoint.tags).rollout),
            )
            message = f"Config version {config.version} gets {share} % of the traffic."
        case _:  # retired: the event of the one that replaced it is enough
            return None
    return EndpointEvent(kind, status, message, config.version)


def _failed_after(before: Deployment, step: Plan, config: Config) -> str:
    now = {e.id: e for e in (*before.entities, *step.entities)}
    failed = [e for e in now.values() if e.config_version == config.version and e.phase is EntityPhase.FAILED]
    return " ".join(f"{e.spec.name}: {e.message}" for e in failed)
