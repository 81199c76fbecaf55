"""One reconcile step as a pure function: what is wanted and what is seen -> what to do next.

The caller brings the world and the time, carries the plan out and comes back. Every step starts from the
whole state, so a lost message, a crash between two effects or a repeated step change nothing in where it
ends.

The order in which a plan is carried out is part of its meaning (``reconciler``): effects on replicas
first, then the routing snapshot, then the rows. A config is therefore ACTIVE in Postgres only after
gateways were told where its replicas are, and an old replica is told to stop only after they were told to
use the new ones.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from servery_common.contracts.routes import EndpointRoute
from servery_common.contracts.states import BuildState, ReplicaState
from servery_controller.domain.endpoint import (
    Config,
    ConfigPhase,
    Deployment,
    Endpoint,
    EntityPhase,
    Observation,
    Replica,
    ServedEntity,
)
from servery_controller.domain.endpoint_options import SCALE_TO_ZERO_SECONDS
from servery_controller.domain.lifecycle import (
    ConfigEvent,
    EntityEvent,
    advance_config,
    advance_entity,
)
from servery_controller.domain.routing import route_of

REBUILD_REQUEST_AFTER = timedelta(seconds=10)
"""A build its builder has never heard of this long after it was ordered is ordered again."""
BUSY = timedelta(seconds=1)
"""Look again this soon while something is under way; hints usually come earlier."""
SETTLED = timedelta(seconds=30)
"""Look again this late when nothing is under way: repairs whatever no hint told of."""

STARTING = "The model is built; starting replicas."

T = TypeVar("T")
_CURRENT = (ConfigPhase.ACTIVE, ConfigPhase.STOPPED)
_WANTED = (ConfigPhase.PENDING, ConfigPhase.ACTIVE)
_UNDER_WAY = (EntityPhase.BUILDING, EntityPhase.STARTING, EntityPhase.RECOVERING)
_RUNNING = (EntityPhase.STARTING, EntityPhase.READY, EntityPhase.RECOVERING)
_ALIVE = (ReplicaState.STARTING, ReplicaState.READY, ReplicaState.RESTARTING)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one step does. The fields stand in the order in which they are carried out."""

    place: tuple[tuple[Replica, ServedEntity], ...] = ()
    """Replicas to find a node for; the next step ensures them there."""
    ensure: tuple[tuple[Replica, ServedEntity], ...] = ()
    """Replicas to make exist on their node."""
    route: EndpointRoute | None = None
    """The routing snapshot that should be published (the publisher skips one it has already)."""
    withdraw_route: bool = False
    stop: tuple[Replica, ...] = ()
    """Replicas to drain and stop."""
    order_builds: tuple[ServedEntity, ...] = ()
    entities: tuple[ServedEntity, ...] = ()
    """Served entities whose phase, message or artifacts changed."""
    configs: tuple[Config, ...] = ()
    """Configs whose phase changed."""
    new_replicas: tuple[tuple[str, int], ...] = ()
    """(served entity id, how many)"""
    stopping: tuple[str, ...] = ()
    """Replica ids that are no longer wanted."""
    gone: tuple[str, ...] = ()
    """Replica ids that were unwanted and have stopped."""
    forget_endpoint: bool = False
    """The endpoint is deleted and nothing of it is left."""
    look_again: timedelta = SETTLED


@dataclass(frozen=True, slots=True)
class Limits:
    """The installation's limits on time."""

    patience: timedelta
    """A config that is pending for longer fails."""
    longest_stream: timedelta
    """How long a streamed answer may go on from its beginning."""
    scale_to_zero: timedelta = timedelta(seconds=SCALE_TO_ZERO_SECONDS)
    """Without a request for so long a served entity is scaled to zero, where its endpoint says nothing else."""

    def longest_answer(self, endpoint: Endpoint) -> timedelta:
        """Return how long an accepted request may keep its replica: all the time to begin, then a whole stream."""
        return timedelta(seconds=endpoint.timeout_seconds) + self.longest_stream


def plan(deployment: Deployment, seen: Observation, now: datetime, limits: Limits) -> Plan:
    """Return the next step for one endpoint."""
    if deployment.endpoint.deleted:
        return _plan_deletion(deployment, seen)

    after = _judge(deployment, seen, now - limits.patience)
    place, ensure, new, surplus = _plan_wanted_replicas(after, seen)
    stop, gone = _plan_unwanted_replicas(deployment, seen)

    changed_entities = _changed(deployment.entities, after.entities)
    changed_configs = _changed(deployment.configs, after.configs)
    busy = bool(
        changed_entities or changed_configs or new or surplus or place or ensure or stop or not seen.complete
    ) or any(e.phase in _UNDER_WAY for e in _wanted(after))
    return Plan(
        place=place,
        ensure=ensure,
        route=route_of(after, seen, limits.longest_stream, limits.scale_to_zero),
        stop=stop,
        order_builds=_lost_builds(after, seen, now),
        entities=changed_entities,
        configs=changed_configs,
        new_replicas=new,
        stopping=surplus,
        gone=gone,
        look_again=BUSY if busy else SETTLED,
    )


def with_placement_problem(step: Plan, entity: ServedEntity, problem: str, running: int) -> Plan:
    """Return the step with the reason why a replica of ``entity`` found no place in the entity's message."""
    if entity.phase is EntityPhase.READY:
        has = f"Has {running} of {entity.desired_replicas} replicas."
    else:
        has = "Waiting for a place for a replica."
    return _with_message(step, entity, f"{has} {problem}")


def with_environment_problem(step: Plan, entity: ServedEntity, problem: str) -> Plan:
    """Return the step with the reason why new replicas of ``entity`` cannot be given their environment variables.

    Told of a READY one too: nothing repairs it but a person.
    """
    return _with_message(step, entity, f"No replica can be started. {problem}")


def _with_message(step: Plan, entity: ServedEntity, message: str) -> Plan:
    told = replace(entity, message=message)
    if told == entity:
        return step
    others = tuple(e for e in step.entities if e.id != entity.id)
    return replace(step, entities=(*others, told))


def _plan_deletion(deployment: Deployment, seen: Observation) -> Plan:
    unwanted = tuple(r.id for r in deployment.replicas if not r.stopping)
    stop, gone = _plan_unwanted_replicas(deployment, seen)
    return Plan(
        withdraw_route=True,
        stop=stop,
        stopping=unwanted,
        gone=gone,
        forget_endpoint=len(gone) == len(deployment.replicas),
        look_again=BUSY,
    )


def _judge(deployment: Deployment, seen: Observation, too_old: datetime) -> Deployment:
    """Apply what was seen to the phases of served entities, then to those of the configs."""
    entities = {e.id: e for e in deployment.entities}
    overdue = {
        c.version for c in deployment.configs if c.phase is ConfigPhase.PENDING and c.created_at < too_old
    }
    for entity in _wanted(deployment):
        judged = _judge_entity(entity, deployment, seen)
        if judged.config_version in overdue and judged.phase in _UNDER_WAY:
            message = f"The deployment took too long. The last it said: {judged.message}"
            judged = _advance_entity(judged, EntityEvent.TIMED_OUT, message)
        entities[entity.id] = judged

    configs = {c.version: c for c in deployment.configs}
    for config in deployment.configs:
        if config.phase is not ConfigPhase.PENDING:
            continue
        own = [e for e in entities.values() if e.config_version == config.version]
        if any(e.phase is EntityPhase.FAILED for e in own):
            configs[config.version] = _advance(config, ConfigEvent.ENTITY_FAILED)
            for entity in own:
                entities[entity.id] = give_up(entity, "Another served entity of this config failed.")
        elif all(e.phase is EntityPhase.READY for e in own):
            configs[config.version] = _advance(config, ConfigEvent.ENTITIES_READY)
            for older in deployment.configs:
                if older.version < config.version and older.phase in _CURRENT:
                    configs[older.version] = _advance(older, ConfigEvent.REPLACED)
                    for entity in deployment.entities_of(older.version):
                        entities[entity.id] = give_up(entity, "Replaced by a newer config.")
    return replace(
        deployment,
        entities=tuple(entities[e.id] for e in deployment.entities),
        configs=tuple(configs[c.version] for c in deployment.configs),
    )


def _judge_entity(entity: ServedEntity, deployment: Deployment, seen: Observation) -> ServedEntity:
    match entity.phase:
        case EntityPhase.BUILDING:
            return _judge_build(entity, seen)
        case EntityPhase.STARTING:
            return _judge_start(entity, deployment, seen)
        case EntityPhase.READY:
            if seen.complete and not _ready(entity, deployment, seen):
                reasons = _reasons(entity, deployment, seen)
                message = f"No replica takes requests; replacing. {reasons}".rstrip()
                return _advance_entity(entity, EntityEvent.REPLICAS_LOST, message)
            wanted = [r for r in deployment.replicas_of(entity.id) if not r.stopping]
            if seen.complete and not any(_missing(replica, seen) for replica in wanted):
                return replace(entity, message="")  # whatever kept a replica from starting is over
        case EntityPhase.RECOVERING:
            if _ready(entity, deployment, seen):
                return _advance_entity(entity, EntityEvent.REPLICA_READY, "")
        case EntityPhase.FAILED | EntityPhase.ABORTED:
            pass
    return entity


def _judge_build(entity: ServedEntity, seen: Observation) -> ServedEntity:
    status = seen.builds.get(entity.build_id)
    if status is None or status.state is None:
        return entity
    if status.state is BuildState.SUCCEEDED and status.artifacts is not None:
        built = _advance_entity(entity, EntityEvent.BUILT, STARTING)
        return replace(built, artifacts=status.artifacts)
    if status.state is BuildState.FAILED:
        return _advance_entity(entity, EntityEvent.BUILD_FAILED, status.reason)
    message = f"Building the model: {status.step}" if status.step else "Building the model."
    return replace(entity, message=message)


def _judge_start(entity: ServedEntity, deployment: Deployment, seen: Observation) -> ServedEntity:
    if _ready(entity, deployment, seen) >= max(1, entity.desired_replicas):
        return _advance_entity(entity, EntityEvent.REPLICA_READY, "")
    if reasons := _reasons(entity, deployment, seen, ReplicaState.FAILED):
        return _advance_entity(entity, EntityEvent.CANNOT_START, f"The model could not be started: {reasons}")
    placed = all(r.id in seen.replicas for r in deployment.replicas_of(entity.id))
    return replace(entity, message=STARTING) if placed else entity


def _plan_wanted_replicas(
    after: Deployment, seen: Observation
) -> tuple[
    tuple[tuple[Replica, ServedEntity], ...],
    tuple[tuple[Replica, ServedEntity], ...],
    tuple[tuple[str, int], ...],
    tuple[str, ...],
]:
    """Return replicas to place, replicas to ensure, rows to add per served entity, and rows to mark as stopping.

    A replica whose node is lost is not ensured anywhere else: the node may come back with it. It is no longer
    wanted, and another one, with another id, takes its place.
    """
    place: list[tuple[Replica, ServedEntity]] = []
    ensure: list[tuple[Replica, ServedEntity]] = []
    new: list[tuple[str, int]] = []
    surplus: list[str] = []
    wanted = {e.id for e in _wanted(after) if e.phase in _RUNNING}
    for entity in after.entities:
        rows = [r for r in after.replicas_of(entity.id) if not r.stopping]
        if entity.id not in wanted:
            surplus += [r.id for r in rows]
            continue
        kept = [r for r in rows if not _node_lost(r, seen)]
        surplus += [r.id for r in rows if _node_lost(r, seen)]
        if len(kept) < entity.desired_replicas:
            new.append((entity.id, entity.desired_replicas - len(kept)))
        surplus += [r.id for r in kept[entity.desired_replicas :]]
        for replica in kept[: entity.desired_replicas]:
            if replica.node is None:
                place.append((replica, entity))
            elif _missing(replica, seen):
                ensure.append((replica, entity))
    return tuple(place), tuple(ensure), tuple(new), tuple(surplus)


def _node_lost(replica: Replica, seen: Observation) -> bool:
    return seen.complete and replica.node is not None and replica.node not in seen.nodes


def _plan_unwanted_replicas(
    deployment: Deployment, seen: Observation
) -> tuple[tuple[Replica, ...], tuple[str, ...]]:
    """Return the stopping replicas that still run, and the ids of those that have gone."""
    stop: list[Replica] = []
    gone: list[str] = []
    for replica in deployment.replicas:
        if not replica.stopping:
            continue
        observed = seen.replicas.get(replica.id)
        if observed is not None and observed.state is not ReplicaState.STOPPED:
            stop.append(replica)
        elif seen.complete:
            gone.append(replica.id)
    return tuple(stop), tuple(gone)


def _lost_builds(after: Deployment, seen: Observation, now: datetime) -> tuple[ServedEntity, ...]:
    return tuple(
        e
        for e in _wanted(after)
        if e.phase is EntityPhase.BUILDING
        and (status := seen.builds.get(e.build_id)) is not None
        and status.state is None
        and now - e.build_requested_at >= REBUILD_REQUEST_AFTER
    )


def _missing(replica: Replica, seen: Observation) -> bool:
    observed = seen.replicas.get(replica.id)
    return seen.complete if observed is None else observed.state not in _ALIVE


def _ready(entity: ServedEntity, deployment: Deployment, seen: Observation) -> int:
    return sum(
        1
        for replica in deployment.replicas_of(entity.id)
        if not replica.stopping
        and (observed := seen.replicas.get(replica.id)) is not None
        and observed.state is ReplicaState.READY
    )


def _reasons(
    entity: ServedEntity, deployment: Deployment, seen: Observation, state: ReplicaState | None = None
) -> str:
    """What the replicas of an entity say about themselves, each sentence once."""
    found = [seen.replicas[r.id] for r in deployment.replicas_of(entity.id) if r.id in seen.replicas]
    return " ".join(
        dict.fromkeys(o.reason for o in found if o.reason and (state is None or o.state is state))
    )


def _wanted(deployment: Deployment) -> tuple[ServedEntity, ...]:
    versions = {c.version for c in deployment.configs if c.phase in _WANTED}
    return tuple(e for e in deployment.entities if e.config_version in versions)


def _advance(config: Config, event: ConfigEvent) -> Config:
    return replace(config, phase=advance_config(config.phase, event))


def _advance_entity(entity: ServedEntity, event: EntityEvent, message: str) -> ServedEntity:
    return replace(entity, phase=advance_entity(entity.phase, event), message=message)


def give_up(entity: ServedEntity, message: str) -> ServedEntity:
    """Return the entity ABORTED with the reason; one that has ended already keeps its own."""
    if entity.phase in (EntityPhase.FAILED, EntityPhase.ABORTED):
        return entity
    return _advance_entity(entity, EntityEvent.GIVEN_UP, message)


def _changed(before: tuple[T, ...], after: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(new for old, new in zip(before, after, strict=True) if new != old)
