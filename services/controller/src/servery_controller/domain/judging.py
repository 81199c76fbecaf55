"""What was seen, applied to the phases of served entities and then to those of their configs. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from servery_common.contracts.states import BuildState, ReplicaState
from servery_controller.domain.adoption import first_replicas, source_of, take_over
from servery_controller.domain.endpoint import (
    Config,
    ConfigPhase,
    Deployment,
    EntityPhase,
    Observation,
    RolloutStep,
    ServedEntity,
)
from servery_controller.domain.endpoint_options import RolloutOptions, options_of
from servery_controller.domain.lifecycle import ConfigEvent, EntityEvent, advance_config, advance_entity
from servery_controller.domain.rebuilding import (
    has_failed,
    is_rebuilt,
    rebuild_message,
    with_new_artifacts,
)
from servery_controller.domain.rollout import (
    PROGRESS,
    Advance,
    RollBack,
    Wait,
    is_guarded,
    judge_rollout,
    new_entities,
    progress,
)
from servery_controller.domain.sightings import is_missing, ready_replicas, reasons, wanted_entities

STARTING = "The model is built; starting replicas."
AT_ZERO = "Scaled to zero. A request wakes it."
REPLACING = "No replica takes requests; replacing."
WAKING = "Scaled to zero, and being woken: a replica is being started."

_CURRENT = (ConfigPhase.ACTIVE, ConfigPhase.STOPPED)
_SERVES = (EntityPhase.READY, EntityPhase.IDLE)
_ENDED = (EntityPhase.FAILED, EntityPhase.ABORTED)
UNDER_WAY = (EntityPhase.BUILDING, EntityPhase.STARTING, EntityPhase.RECOVERING)


def judge(deployment: Deployment, seen: Observation, now: datetime, patience: timedelta) -> Deployment:
    """Return the deployment with the phases that follow from what was seen.

    Configs that have been pending for longer than ``patience`` fail.
    """
    entities = {e.id: e for e in deployment.entities}
    overdue = {
        c.version
        for c in deployment.configs
        if c.phase is ConfigPhase.PENDING and c.created_at < now - patience
    }
    for entity in wanted_entities(deployment):
        judged = _judge_entity(entity, deployment, seen)
        if judged.config_version in overdue and judged.phase in UNDER_WAY:
            message = f"The deployment took too long. The last it said: {judged.message}"
            judged = _advance_entity(judged, EntityEvent.TIMED_OUT, message)
        entities[entity.id] = judged
    after = replace(deployment, entities=tuple(entities[e.id] for e in deployment.entities))
    newest = deployment.newest
    if newest is None or not deployment.updating:
        return after
    return _judge_update(newest, after, seen, now)


def _judge_update(config: Config, deployment: Deployment, seen: Observation, now: datetime) -> Deployment:
    """Return the deployment with the phase of the config that is on its way."""
    own = deployment.entities_of(config.version)
    if any(e.phase is EntityPhase.FAILED for e in own):
        failed = replace(_advance(config, ConfigEvent.ENTITY_FAILED), rollout=None)
        return _with(
            deployment, [failed], [give_up(e, "Another served entity of this config failed.") for e in own]
        )
    options = options_of(deployment.endpoint.tags).rollout
    if config.phase is ConfigPhase.PENDING:
        if not all(e.phase in _SERVES for e in own):
            return deployment
        if not is_guarded(config, deployment, options):
            return _activate(_advance(config, ConfigEvent.ENTITIES_READY), deployment)
        begun = replace(_advance(config, ConfigEvent.ROLLOUT_BEGUN), rollout=RolloutStep(0, now))
        return _at_step(begun, deployment, seen, options, now)
    verdict = judge_rollout(config, deployment, seen, options, now)
    match verdict:
        case RollBack(reason):
            rolled_back = replace(_advance(config, ConfigEvent.ROLLED_BACK), rollout=None)
            worse = {e.id for e in new_entities(config, deployment)}
            return _with(
                deployment,
                [rolled_back],
                [
                    _advance_entity(e, EntityEvent.REGRESSED, f"Rolled back. {reason}")
                    if e.id in worse
                    else give_up(e, "The config was rolled back.")
                    for e in own
                ],
            )
        case Advance():
            index = len(options.steps) if config.rollout is None else config.rollout.index + 1
            if options.kind != "guarded" or index >= len(options.steps):
                return _activate(
                    replace(_advance(config, ConfigEvent.ROLLOUT_ENDED), rollout=None), deployment
                )
            # What was counted belongs to the step before.
            seen = replace(seen, health={})
            return _at_step(replace(config, rollout=RolloutStep(index, now)), deployment, seen, options, now)
        case Wait():
            return _at_step(config, deployment, seen, options, now)


def _at_step(
    config: Config, deployment: Deployment, seen: Observation, options: RolloutOptions, now: datetime
) -> Deployment:
    """Return the deployment with a config that is rolling, whose new served entities say how far it is."""
    told = progress(config, deployment, seen, options, now)
    # One that says something else has a problem, which comes first.
    silent = [e for e in new_entities(config, deployment) if not e.message or e.message.startswith(PROGRESS)]
    return _with(deployment, [config], [replace(e, message=told) for e in silent])


def _activate(config: Config, deployment: Deployment) -> Deployment:
    """The config takes the traffic: those before it are retired, and its entities have what they adopted."""
    older = [c for c in deployment.configs if c.version < config.version and c.phase in _CURRENT]
    given_up = [
        give_up(e, "Replaced by a newer config.") for c in older for e in deployment.entities_of(c.version)
    ]
    retired = [_advance(c, ConfigEvent.REPLACED) for c in older]
    own = deployment.entities_of(config.version)
    arrived = [replace(e, message="") for e in own if e.message.startswith(PROGRESS)]
    judged = {e.id: e for e in deployment.entities}
    return take_over(_with(deployment, [config, *retired], [*given_up, *arrived]), config.version, judged)


def _with(deployment: Deployment, configs: Sequence[Config], entities: Sequence[ServedEntity]) -> Deployment:
    changed_configs, changed = {c.version: c for c in configs}, {e.id: e for e in entities}
    return replace(
        deployment,
        configs=tuple(changed_configs.get(c.version, c) for c in deployment.configs),
        entities=tuple(changed.get(e.id, e) for e in deployment.entities),
    )


def give_up(entity: ServedEntity, message: str) -> ServedEntity:
    """Return the entity ABORTED with the reason; one that has ended already keeps its own."""
    if entity.phase in _ENDED:
        return entity
    return _advance_entity(entity, EntityEvent.GIVEN_UP, message)


def _judge_entity(entity: ServedEntity, deployment: Deployment, seen: Observation) -> ServedEntity:
    if not is_rebuilt(entity):
        return _judge_phase(entity, deployment, seen)
    entity = with_new_artifacts(entity, seen)
    judged = _judge_phase(entity, deployment, seen)
    if not is_rebuilt(judged) or judged.desired_replicas == 0:
        return judged
    message = rebuild_message(entity, seen)
    if has_failed(judged, seen) and judged.phase is EntityPhase.STARTING:
        return _advance_entity(judged, EntityEvent.CANNOT_START, message)
    if has_failed(judged, seen) and judged.phase is EntityPhase.IDLE:
        return _advance_entity(judged, EntityEvent.REPLICAS_LOST, message)
    return replace(judged, message=message)


def _judge_phase(entity: ServedEntity, deployment: Deployment, seen: Observation) -> ServedEntity:
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
            if failures := reasons(entity, deployment, seen, ReplicaState.FAILED):
                # Often known only a moment after the last one was lost: of a container the engine says why it ended.
                return replace(entity, message=f"{REPLACING} {failures}")
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
    if _has_enough(entity, deployment, seen):
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
        message = f"{REPLACING} {reasons(entity, deployment, seen)}".rstrip()
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


def _has_enough(entity: ServedEntity, deployment: Deployment, seen: Observation) -> bool:
    """Whether as many replicas are ready as it should begin with.

    With as many as it is promised it can begin, too, if all others wait for a place: there may never be one, as
    those of the config it replaces are there until it is ready.
    """
    ready = ready_replicas(entity, deployment, seen)
    placeless = sum(r.node is None for r in deployment.replicas_of(entity.id) if not r.stopping)
    wanted = max(1, entity.desired_replicas)
    return ready >= wanted or (ready >= max(1, entity.min_replicas) and ready + placeless >= wanted)


def _all_seen(entity: ServedEntity, deployment: Deployment, seen: Observation) -> bool:
    """Whether every replica found a place and its worker tells of it; nothing is in the way then."""
    return all(r.id in seen.replicas for r in deployment.replicas_of(entity.id))


def _advance(config: Config, event: ConfigEvent) -> Config:
    return replace(config, phase=advance_config(config.phase, event))


def _advance_entity(entity: ServedEntity, event: EntityEvent, message: str) -> ServedEntity:
    return replace(entity, phase=advance_entity(entity.phase, event), message=message)
