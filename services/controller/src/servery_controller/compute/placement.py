"""Which worker gets a new replica. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from servery_common.contracts.replicas import ReplicaObservation, WorkerHeartbeat
from servery_common.contracts.states import ReplicaState
from servery_controller.domain.capacity import Room


@dataclass(slots=True)
class WorkerView:
    """A worker as of its last heartbeat. ``heard_at`` is in the backend's monotonic seconds."""

    worker_id: str
    node: str
    capacity_slots: int
    replicas: Mapping[str, ReplicaObservation]
    warm_environments: frozenset[str]
    heard_at: float

    @classmethod
    def of(cls, heartbeat: WorkerHeartbeat, heard_at: float) -> "WorkerView":
        """Take over a heartbeat."""
        return cls(
            worker_id=heartbeat.worker_id,
            node=node_name(heartbeat.worker_id, heartbeat.incarnation),
            capacity_slots=heartbeat.capacity_slots,
            replicas={r.replica_id: r for r in heartbeat.replicas if r.state is not ReplicaState.STOPPED},
            warm_environments=frozenset(heartbeat.warm_environments),
            heard_at=heard_at,
        )


def node_name(worker_id: str, incarnation: str) -> str:
    """A node is one life of a worker.

    A worker that was restarted has lost its replicas and what they worked on. It is another node, so they get
    other ids, and nobody waits for an answer from the old ones.
    """
    return f"{worker_id}/{incarnation}"


def worker_of(node: str) -> str:
    """Return the worker id of a node."""
    return node.partition("/")[0]


def room_for(
    workers: Iterable[WorkerView], placements: Mapping[str, str], *, slots: int, heard_since: float
) -> Room:
    """Return the room for replicas of ``slots`` slots each; the rest as for ``choose_worker``.

    In whole replicas: what is left over on a worker is no room.
    """
    total = used = 0
    for worker in workers:
        if worker.heard_at < heard_since:
            continue
        total += worker.capacity_slots // slots
        free = max(0, worker.capacity_slots - _used(worker, placements, slots)) // slots
        used += worker.capacity_slots // slots - free
    return Room(total * slots, used * slots)


def choose_worker(
    workers: Iterable[WorkerView],
    placements: Mapping[str, str],
    *,
    slots: int,
    environment_key: str,
    heard_since: float,
) -> str | None:
    """Return the node for a replica of ``slots`` slots, or None when none has room.

    Among living workers with room: one with a warm parent for the environment first (the replica starts in
    a fraction of a second there), then the least used share of capacity, then the id, so that the choice is
    repeatable. ``placements`` are orders no heartbeat shows yet.
    """
    best: tuple[bool, float, str] | None = None
    for worker in workers:
        if worker.heard_at < heard_since:
            continue
        used = _used(worker, placements, slots)
        if used + slots > worker.capacity_slots:
            continue
        rank = (
            environment_key not in worker.warm_environments,
            used / worker.capacity_slots,
            worker.node,
        )
        if best is None or rank < best:
            best = rank
    return best[2] if best else None


def _used(worker: WorkerView, placements: Mapping[str, str], slots: int) -> int:
    unseen = sum(1 for r, node in placements.items() if node == worker.node and r not in worker.replicas)
    return sum(r.slots for r in worker.replicas.values()) + unseen * slots
