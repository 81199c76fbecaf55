"""Which replicas to have, to place, to order and to end. Pure."""

from typing import NamedTuple

from servery_common.contracts.states import ReplicaState
from servery_controller.domain.adoption import source_of
from servery_controller.domain.endpoint import (
    Deployment,
    EntityPhase,
    Observation,
    Replica,
    ServedEntity,
)
from servery_controller.domain.rebuilding import is_rebuilt
from servery_controller.domain.sightings import is_missing, wanted_entities

_RUNNING = (EntityPhase.STARTING, EntityPhase.READY, EntityPhase.IDLE, EntityPhase.RECOVERING)


class WantedReplicas(NamedTuple):
    """What to do about the replicas that are wanted."""

    place: tuple[tuple[Replica, ServedEntity], ...]
    """To find a node for."""
    ensure: tuple[tuple[Replica, ServedEntity], ...]
    """To make exist on their node."""
    new: tuple[tuple[ServedEntity, int], ...]
    """Served entities that lack some, and how many."""
    surplus: tuple[str, ...]
    """Ids of those that are no longer wanted."""


def plan_wanted(after: Deployment, seen: Observation) -> WantedReplicas:
    """Return what the replicas of all wanted served entities need.

    A replica whose node is lost is not ensured anywhere else: the node may come back with it. It is no longer
    wanted, and another one, with another id, takes its place. An entity that takes over the replicas of another
    one needs none of its own; one that is built again gets none until it is.
    """
    place: list[tuple[Replica, ServedEntity]] = []
    ensure: list[tuple[Replica, ServedEntity]] = []
    new: list[tuple[ServedEntity, int]] = []
    surplus: list[str] = []
    wanted = {e.id for e in wanted_entities(after) if e.phase in _RUNNING and source_of(e, after) is None}
    for entity in after.entities:
        rows = [r for r in after.replicas_of(entity.id) if not r.stopping]
        if entity.id not in wanted:
            surplus += [r.id for r in rows]
            continue
        kept = _most_useful_first([r for r in rows if not _node_lost(r, seen)], seen)
        surplus += [r.id for r in rows if _node_lost(r, seen)]
        surplus += [r.id for r in kept[entity.desired_replicas :]]
        if is_rebuilt(entity):
            continue
        if len(kept) < entity.desired_replicas:
            new.append((entity, entity.desired_replicas - len(kept)))
        for replica in kept[: entity.desired_replicas]:
            if replica.node is None:
                place.append((replica, entity))
            elif is_missing(replica, seen):
                ensure.append((replica, entity))
    return WantedReplicas(tuple(place), tuple(ensure), tuple(new), tuple(surplus))


def plan_unwanted(deployment: Deployment, seen: Observation) -> tuple[tuple[Replica, ...], tuple[str, ...]]:
    """Return the stopping replicas that still run, and the ids of those that have gone."""
    stop: list[Replica] = []
    gone: list[str] = []
    for replica in deployment.replicas:
        if not replica.stopping:
            continue
        observed = seen.replicas.get(replica.id)
        running = observed is not None and observed.state is not ReplicaState.STOPPED
        if running or replica.id in seen.waiting:
            stop.append(replica)
        elif seen.complete:
            gone.append(replica.id)
    return tuple(stop), tuple(gone)


def _most_useful_first(replicas: list[Replica], seen: Observation) -> list[Replica]:
    """Those that take requests, then those that may soon, then those without a place; each group oldest first.

    Of too many the last ones are ended: never one that works while another one is still being started.
    """

    def rank(replica: Replica) -> int:
        observed = seen.replicas.get(replica.id)
        if observed is not None and observed.state is ReplicaState.READY:
            return 0
        if observed is not None and observed.state is not ReplicaState.FAILED:
            return 1
        return 2 if replica.node is not None else 3

    return sorted(replicas, key=rank)


def _node_lost(replica: Replica, seen: Observation) -> bool:
    return seen.complete and replica.node is not None and replica.node not in seen.nodes
