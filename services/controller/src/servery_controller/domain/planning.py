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
from servery_controller.domain.endpoint import (
    Config,
    Deployment,
    Endpoint,
    EntityPhase,
    Observation,
    Replica,
    ServedEntity,
)
from servery_controller.domain.endpoint_options import SCALE_TO_ZERO_SECONDS
from servery_controller.domain.judging import UNDER_WAY, judge
from servery_controller.domain.rebuilding import is_rebuilt, to_rebuild, to_try_again
from servery_controller.domain.replica_planning import plan_unwanted, plan_wanted
from servery_controller.domain.routing import route_of
from servery_controller.domain.sightings import wanted_entities

REBUILD_REQUEST_AFTER = timedelta(seconds=10)
"""A build its builder has never heard of this long after it was ordered is ordered again."""
BUSY = timedelta(seconds=1)
"""Look again this soon while something is under way; hints usually come earlier."""
SETTLED = timedelta(seconds=30)
"""Look again this late when nothing is under way: repairs whatever no hint told of."""

T = TypeVar("T")


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
    rebuild: tuple[ServedEntity, ...] = ()
    """Served entities that get another build, with an id of its own (``with_rebuild``)."""
    entities: tuple[ServedEntity, ...] = ()
    """Served entities whose phase, message or artifacts changed."""
    configs: tuple[Config, ...] = ()
    """Configs whose phase changed."""
    adopt: tuple[tuple[str, str], ...] = ()
    """(served entity id, id of the one that takes its replicas over)"""
    new_replicas: tuple[tuple[ServedEntity, int], ...] = ()
    """Served entities that get more replicas, and how many."""
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

    after = judge(deployment, seen, now, limits.patience)
    replicas = plan_wanted(after, seen)
    stop, gone = plan_unwanted(deployment, seen)

    changed_entities = _changed(deployment.entities, after.entities)
    changed_configs = _changed(deployment.configs, after.configs)
    acted = changed_entities or changed_configs or stop or any(replicas)
    under_way = after.rolling is not None or any(_is_under_way(e) for e in wanted_entities(after))
    busy = acted or not seen.complete or under_way
    return Plan(
        place=replicas.place,
        ensure=replicas.ensure,
        route=route_of(after, seen, limits.longest_stream, limits.scale_to_zero),
        stop=stop,
        order_builds=_lost_builds(after, seen, now),
        rebuild=to_try_again(wanted_entities(after), seen, now),
        entities=changed_entities,
        configs=changed_configs,
        adopt=_adoptions(deployment, after),
        new_replicas=replicas.new,
        stopping=replicas.surplus,
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

    Told of a READY one too: nothing repairs it but a person. So gateways are told as well: nobody should wait for one.
    """
    told = _with_message(step, entity, f"No replica can be started. {problem}")
    if told.route is None:
        return told
    entities = tuple(
        one.model_copy(update={"holds": False, "problem": problem})
        if one.served_entity_id == entity.id
        else one
        for one in told.route.served_entities
    )
    return replace(told, route=told.route.model_copy(update={"served_entities": entities}))


def with_rebuild(step: Plan, entity: ServedEntity, problem: str, build_id: str, now: datetime) -> Plan:
    """Return the step with another build of ``entity``, as what its replicas are made of is gone: ``problem``."""
    if any(e.id == entity.id for e in step.order_builds):
        return step  # several of its replicas missed it
    ordered = to_rebuild(entity, problem, build_id, now)
    others = tuple(e for e in step.entities if e.id != entity.id)
    return replace(
        step, entities=(*others, ordered), order_builds=(*step.order_builds, ordered), look_again=BUSY
    )


def _with_message(step: Plan, entity: ServedEntity, message: str) -> Plan:
    # What the step has decided of it stays: it may have to be built again.
    now = next((e for e in step.entities if e.id == entity.id), entity)
    told = replace(now, message=message)
    if told == now:
        return step
    others = tuple(e for e in step.entities if e.id != entity.id)
    return replace(step, entities=(*others, told))


def _plan_deletion(deployment: Deployment, seen: Observation) -> Plan:
    unwanted = tuple(r.id for r in deployment.replicas if not r.stopping)
    stop, gone = plan_unwanted(deployment, seen)
    return Plan(
        withdraw_route=True,
        stop=stop,
        stopping=unwanted,
        gone=gone,
        forget_endpoint=len(gone) == len(deployment.replicas),
        look_again=BUSY,
    )


def _is_under_way(entity: ServedEntity) -> bool:
    woken = entity.phase is EntityPhase.IDLE and entity.desired_replicas > 0
    built = is_rebuilt(entity) and entity.desired_replicas > 0
    return woken or built or entity.phase in UNDER_WAY


def _adoptions(before: Deployment, after: Deployment) -> tuple[tuple[str, str], ...]:
    return tuple(
        (old.adopts, old.id)
        for old, new in zip(before.entities, after.entities, strict=True)
        if old.adopts is not None and new.adopts is None
    )


def _lost_builds(after: Deployment, seen: Observation, now: datetime) -> tuple[ServedEntity, ...]:
    return tuple(
        e
        for e in wanted_entities(after)
        if (e.phase is EntityPhase.BUILDING or is_rebuilt(e))
        and (status := seen.builds.get(e.build_id)) is not None
        and status.state is None
        and now - e.build_requested_at >= REBUILD_REQUEST_AFTER
    )


def _changed(before: tuple[T, ...], after: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(new for old, new in zip(before, after, strict=True) if new != old)
