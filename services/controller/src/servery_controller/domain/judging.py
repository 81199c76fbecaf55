"""What was seen, applied to the phases of served entities and then to those of their configs. Pure."""

from dataclasses import replace
from datetime import datetime

from servery_common.contracts.states import BuildState, ReplicaState
from servery_controller.domain.adoption import first_replicas, source_of, take_over
from servery_controller.domain.endpoint import (
    Config,
    ConfigPhase,
    Deployment,
    EntityPhase,
    Observation,
    ServedEntity,
)
from servery_controller.domain.lifecycle import ConfigEvent, EntityEvent, advance_config, advance_entity
from servery_controller.domain.sightings import is_missing, ready_replicas, reasons, wanted_entities

STARTING = "The model is built; starting replicas."
AT_ZERO = "Scaled to zero. A request wakes it."
WAKING = "Scaled to zero, and being woken: a replica is being started."

_CURRENT = (ConfigPhase.ACTIVE, ConfigPhase.STOPPED)
_ENDED = (EntityPhase.FAILED, EntityPhase.ABORTED)
UNDER_WAY = (EntityPhase.BUILDING, EntityPhase.STARTING, EntityPhase.RECOVERING)


def judge(deployment: Deployment, seen: Observation, too_old: datetime) -> Deployment:
    """Return the deployment with the phases that follow from what was seen.

    Configs that are pending since before ``too_old`` fail.
    """
    entities = {e.id: e for e in deployment.entities}
    overdue = {
        c.version for c in deployment.configs if c.phase is ConfigPhase.PENDING and c.created_at < too_old
    }
    for entity in wanted_entities(deployment):
        judged = _judge_entity(entity, deployment, seen)
        if judged.config_version in overdue and judged.phase in UNDER_WAY:
            message = f"The deployment took too long. The last it said: {judged.message}"
            judged = _advance_entity(judged, EntityEvent.TIMED_OUT, message)
        entities[entity.id] = judged

    configs = {c.version: c for c in deployment.configs}
    became_active: int | None = None
    for config in deployment.configs:
        if config.phase is not ConfigPhase.PENDING:
            continue
        own = [e for e in entities.values() if e.config_version == config.version]
        if any(e.phase is EntityPhase.FAILED for e in own):
            configs[config.version] = _advance(config, ConfigEvent.ENTITY_FAILED)
            for entity in own:
                entities[entity.id] = give_up(entity, "Another served entity of this config failed.")
        elif all(e.phase in (EntityPhase.READY, EntityPhase.IDLE) for e in own):
            configs[config.version] = _advance(config, ConfigEvent.ENTITIES_READY)
            became_active = config.version
            for older in deployment.configs:
                if older.version < config.version and older.phase in _CURRENT:
                    configs[older.version] = _advance(older, ConfigEvent.REPLACED)
                    for entity in deployment.entities_of(older.version):
                        entities[entity.id] = give_up(entity, "Replaced by a newer config.")
    after = replace(
        deployment,
        entities=tuple(entities[e.id] for e in deployment.entities),
        configs=tuple(configs[c.version] for c in deployment.configs),
    )
    return after if became_active is None else take_over(after, became_active)


def give_up(entity: ServedEntity, message: str) -> ServedEntity:
    """Return the entity ABORTED with the reason; one that has ended already keeps its own."""
    if entity.phase in _ENDED:
        return entity
    return _advance_entity(entity, EntityEvent.GIVEN_UP, message)


def _judge_entity(entity: ServedEntity, deployment: Deployment, seen: Observation) -> ServedEntity:
    match entity.phase:
        case EntityPhase.BUILDING:
            return _judge_build(entity, deployment, seen)
        case EntityPhase.STARTING:
            return _judge_start(entity, deployment, seen)
        case EntityPhase.READY:
            return _judge_ready(entity, deployment, seen)
        case EntityPhase.IDLE:
            return _judge_idle(entity, deployment, seen)
        case EntityPhase.RECOVERING:
            if entity.desired_replicas == 0:
                return _advance_entity(entity, EntityEvent.SLEPT, AT_ZERO)
            if ready_replicas(entity, deployment, seen):
                return _advance_entity(entity, EntityEvent.REPLICA_READY, "")
        case EntityPhase.FAILED | EntityPhase.ABORTED:
            pass
    return entity


def _judge_build(entity: ServedEntity, deployment: Deployment, seen: Observation) -> ServedEntity:
    status = seen.builds.get(entity.build_id)
    if status is None or status.state is None:
        return entity
    if status.state is BuildState.SUCCEEDED and status.artifacts is not None:
        built = _advance_entity(entity, EntityEvent.BUILT, STARTING)
        config = next(c for c in deployment.configs if c.version == entity.config_version)
        desired = first_replicas(entity, config, deployment)
        return replace(built, artifacts=status.artifacts, desired_replicas=desired)
    if status.state is BuildState.FAILED:
        return _advance_entity(entity, EntityEvent.BUILD_FAILED, status.reason)
    message = f"Building the model: {status.step}" if status.step else "Building the model."
    return replace(entity, message=message)


def _judge_start(entity: ServedEntity, deployment: Deployment, seen: Observation) -> ServedEntity:
    source = source_of(entity, deployment)
    if source is not None:
        if source.phase is EntityPhase.IDLE:
            return _advance_entity(entity, EntityEvent.SLEPT, AT_ZERO)
        if ready_replicas(source, deployment, seen):
            return _advance_entity(entity, EntityEvent.REPLICA_READY, "")
        return entity
    if ready_replicas(entity, deployment, seen) >= max(1, entity.desired_replicas):
        return _advance_entity(entity, EntityEvent.REPLICA_READY, "")
    if failures := reasons(entity, deployment, seen, ReplicaState.FAILED):
        return _advance_entity(
            entity, EntityEvent.CANNOT_START, f"The model could not be started: {failures}"
        )
    return replace(entity, message=STARTING) if _all_seen(entity, deployment, seen) else entity


def _judge_ready(entity: ServedEntity, deployment: Deployment, seen: Observation) -> ServedEntity:
    if source_of(entity, deployment) is not None:
        return entity  # what it goes on with is judged itself
    if entity.desired_replicas == 0:
        return _advance_entity(entity, EntityEvent.SLEPT, AT_ZERO)
    if not seen.complete:
        return entity
    if not ready_replicas(entity, deployment, seen):
        message = f"No replica takes requests; replacing. {reasons(entity, deployment, seen)}".rstrip()
        return _advance_entity(entity, EntityEvent.REPLICAS_LOST, message)
    wanted = [r for r in deployment.replicas_of(entity.id) if not r.stopping]
    if not any(is_missing(replica, seen) for replica in wanted):
        return replace(entity, message="")  # whatever kept a replica from starting is over
    return entity


def _judge_idle(entity: ServedEntity, deployment: Deployment, seen: Observation) -> ServedEntity:
    if source_of(entity, deployment) is not None:
        return entity
    if entity.desired_replicas == 0:
        return replace(entity, message=AT_ZERO)
    if ready_replicas(entity, deployment, seen):
        return _advance_entity(entity, EntityEvent.REPLICA_READY, "")
    if failures := reasons(entity, deployment, seen, ReplicaState.FAILED):
        message = f"The model could not be started: {failures}"
        return _advance_entity(entity, EntityEvent.REPLICAS_LOST, message)
    if entity.message == AT_ZERO or _all_seen(entity, deployment, seen):
        return replace(entity, message=WAKING)
    return entity


def _all_seen(entity: ServedEntity, deployment: Deployment, seen: Observation) -> bool:
    """Whether every replica found a place and its worker tells of it; nothing is in the way then."""
    return all(r.id in seen.replicas for r in deployment.replicas_of(entity.id))


def _advance(config: Config, event: ConfigEvent) -> Config:
    return replace(config, phase=advance_config(config.phase, event))


def _advance_entity(entity: ServedEntity, event: EntityEvent, message: str) -> ServedEntity:
    return replace(entity, phase=advance_entity(entity.phase, event), message=message)
