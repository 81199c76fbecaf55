"""Served entities that keep their replicas across config versions. Pure.

A new config often holds a served entity just as the active one does: only the traffic split changed, or another
entity came beside it. Its replicas are the right ones already. So the new entity *adopts* the old one: it is not
built, has no replicas of its own, and is ready when the old one is. When its config becomes active the rows of the
replicas change hands in the transaction that switches the configs; the processes notice nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil

from servery_controller.domain.endpoint import (
    Config,
    Deployment,
    EntityPhase,
    EntitySpec,
    Route,
    ServedEntity,
)

_CAN_BE_ADOPTED = (EntityPhase.READY, EntityPhase.IDLE)


def source_of(entity: ServedEntity, deployment: Deployment) -> ServedEntity | None:
    """Return the entity whose replicas this one is to take over; None as well when that one serves no longer."""
    active = deployment.active
    if entity.adopts is None or active is None:
        return None
    return next((e for e in deployment.entities_of(active.version) if e.id == entity.adopts), None)


def adoptable(
    specs: Sequence[EntitySpec], routes: Sequence[Route], deployment: Deployment
) -> dict[str, ServedEntity]:
    """Return, by served name, the entities of the active config that a new config with these specs goes on with.

    Nothing when the new config is the active one over again: who asks for that wants it deployed anew, for
    instance because a secret has another value.
    """
    active = deployment.active
    if active is None:
        return {}
    present = {e.spec.name: e for e in deployment.entities_of(active.version)}
    same = {s.name for s in specs if s.name in present and present[s.name].spec == s}
    if same == present.keys() and len(specs) == len(present) and _shares(routes) == _shares(active.routes):
        return {}
    return {
        s.name: present[s.name]
        for s in specs
        if s.name in present
        and _runs_alike(present[s.name].spec, s)
        and present[s.name].phase in _CAN_BE_ADOPTED
        and present[s.name].artifacts is not None
    }


def adopting(entity: ServedEntity, source: ServedEntity) -> ServedEntity:
    """Return the new entity as one that takes over the replicas of ``source``, and acts as the same creator."""
    return replace(
        entity,
        adopts=source.id,
        build_id=source.build_id,
        build_requested_at=source.build_requested_at,
        artifacts=source.artifacts,
        phase=EntityPhase.STARTING,
        message="Goes on with the replicas it has.",
        desired_replicas=within_range(source.desired_replicas, entity),
        creator=source.creator,
        creator_id=source.creator_id,
        created_at=source.created_at,
    )


def take_over(deployment: Deployment, version: int, judged: Mapping[str, ServedEntity]) -> Deployment:
    """Return the deployment after a config version became active: its entities have what they adopted.

    That is the replicas, how many there should be, and the phase: one that is being woken goes on being woken.
    ``judged`` are the entities as they were before those of the older configs were given up, by id.
    """
    heirs = {
        e.adopts: e
        for e in deployment.entities_of(version)
        if e.adopts is not None and any(source.id == e.adopts for source in deployment.entities)
    }
    return replace(
        deployment,
        entities=tuple(
            replace(
                e,
                adopts=None,
                desired_replicas=within_range(judged[e.adopts].desired_replicas, e),
                phase=judged[e.adopts].phase,
                message=judged[e.adopts].message,
            )
            if e.adopts in heirs and e.config_version == version
            else e
            for e in deployment.entities
        ),
        replicas=tuple(
            replace(r, served_entity_id=heirs[r.served_entity_id].id)
            if r.served_entity_id in heirs and not r.stopping
            else r
            for r in deployment.replicas
        ),
    )


def first_replicas(entity: ServedEntity, config: Config, deployment: Deployment) -> int:
    """Return how many replicas an entity starts with: what its share of the present traffic needs.

    The demand will be there when the new config becomes active; to learn it only then would lose requests.
    """
    active = deployment.active
    if active is None:
        return entity.desired_replicas
    serving = sum(e.desired_replicas for e in deployment.entities_of(active.version))
    share = _shares(config.routes).get(entity.spec.name, 0)
    # At least one, also of those that may be at zero: it must be seen to work before it may sleep.
    return max(1, within_range(ceil(serving * share / 100), entity))


def within_range(count: int, entity: ServedEntity) -> int:
    """Return the count within the entity's range."""
    return min(max(count, entity.min_replicas), entity.max_replicas)


def _shares(routes: Sequence[Route]) -> dict[str, int]:
    return {r.served_entity_name: r.traffic_percentage for r in routes if r.traffic_percentage}


def _runs_alike(one: EntitySpec, other: EntitySpec) -> bool:
    """Whether a replica of one is a replica of the other: all but how many there may be."""
    return (
        replace(
            one,
            workload_size=other.workload_size,
            scale_to_zero_enabled=other.scale_to_zero_enabled,
            min_provisioned_concurrency=other.min_provisioned_concurrency,
            max_provisioned_concurrency=other.max_provisioned_concurrency,
        )
        == other
    )
