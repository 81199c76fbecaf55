"""How many replicas a served entity has, by what they are doing. Pure."""

from collections import Counter
from dataclasses import dataclass

from servery_common.contracts.states import ReplicaState
from servery_controller.domain.endpoint import Deployment, Observation


@dataclass(frozen=True, slots=True)
class ReplicaCounts:
    """Counts of one served entity."""

    ready: int
    """They take requests."""
    starting: int
    """They have a place and do not take requests yet, or not now."""
    waiting: int
    """No place was found for them yet."""
    stopping: int
    """They finish what they accepted."""


def replica_counts(deployment: Deployment, seen: Observation, entity_id: str) -> ReplicaCounts:
    """Count the replicas of a served entity."""
    found: Counter[str] = Counter()
    for replica in deployment.replicas_of(entity_id):
        observed = seen.replicas.get(replica.id)
        if replica.stopping:
            found["stopping"] += 1
        elif replica.node is None:
            found["waiting"] += 1
        elif observed is not None and observed.state is ReplicaState.READY:
            found["ready"] += 1
        else:
            found["starting"] += 1
    return ReplicaCounts(**{name: found[name] for name in ("ready", "starting", "waiting", "stopping")})
