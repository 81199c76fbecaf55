"""What an observation says of the replicas of a served entity. Pure."""

from servery_common.contracts.replicas import ReplicaObservation
from servery_common.contracts.states import ReplicaState
from servery_controller.domain.endpoint import ConfigPhase, Deployment, Observation, Replica, ServedEntity

_ALIVE = (ReplicaState.STARTING, ReplicaState.READY, ReplicaState.RESTARTING)
_WANTED = (ConfigPhase.PENDING, ConfigPhase.ROLLING, ConfigPhase.ACTIVE)


def wanted_entities(deployment: Deployment) -> tuple[ServedEntity, ...]:
    """The served entities of the configs that serve, or are on their way to."""
    versions = {c.version for c in deployment.configs if c.phase in _WANTED}
    return tuple(e for e in deployment.entities if e.config_version in versions)


def is_missing(replica: Replica, seen: Observation) -> bool:
    """Whether a replica has to be ordered (again): it certainly is not there, or it has ended."""
    observed = seen.replicas.get(replica.id)
    return seen.complete if observed is None else observed.state not in _ALIVE


def ready_replicas(entity: ServedEntity, deployment: Deployment, seen: Observation) -> int:
    """How many replicas that are wanted take requests."""
    return sum(o.state is ReplicaState.READY for o in observed_replicas(entity, deployment, seen))


def reasons(
    entity: ServedEntity, deployment: Deployment, seen: Observation, state: ReplicaState | None = None
) -> str:
    """What the replicas of an entity say about themselves, each sentence once."""
    found = observed_replicas(entity, deployment, seen)
    return " ".join(
        dict.fromkeys(o.reason for o in found if o.reason and (state is None or o.state is state))
    )


def observed_replicas(
    entity: ServedEntity, deployment: Deployment, seen: Observation
) -> tuple[ReplicaObservation, ...]:
    """Those replicas of an entity that are wanted and seen."""
    return tuple(
        seen.replicas[replica.id]
        for replica in deployment.replicas_of(entity.id)
        if not replica.stopping and replica.id in seen.replicas
    )
