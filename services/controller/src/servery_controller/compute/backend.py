"""The compute port: where replicas run. Implementations: ``process``, ``docker_backend``.

All verbs but ``logs`` are idempotent and quick; none waits for a replica to become ready. What became of an
order is seen in ``observe``.
"""

from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Protocol

from servery_common.contracts.replicas import ReplicaLaunch
from servery_common.errors import Unavailable
from servery_controller.domain.capacity import Room
from servery_controller.domain.endpoint import Observation


class ArtifactsGone(Unavailable):
    """What the replica is made of is not there any more, so it has to be built again. The message says what is gone."""


class ComputeBackend(Protocol):
    """Make replicas exist and cease."""

    def place(self, replica_id: str, *, slots: int, environment_key: str, workload_type: str = "CPU") -> str:
        """Choose the node for a new replica. Raises Unavailable when none can take it, with the reason for people."""
        ...

    def forget_placement(self, replica_id: str) -> None:
        """The node that ``place`` returned was never written down: its room is free again."""
        ...

    def room(self, slots: int) -> Room:
        """Return how many slots new replicas of ``slots`` slots each could have at most, and how many are taken."""
        ...

    def ready_replicas(self) -> Collection[str]:
        """Return the ids of replicas that certainly take requests: they said so a moment ago."""
        ...

    async def ensure(self, node: str, launch: ReplicaLaunch) -> None:
        """Make the replica exist on its node. Calling it again for the same id changes nothing.

        Raises ResourceExhausted when the node certainly has not taken it, ArtifactsGone when it cannot be made without
        another build, Unavailable when it is not known.
        """
        ...

    async def stop(self, replica_id: str, grace: timedelta, epoch: int) -> None:
        """Let it finish what it accepted for at most ``grace`` and stop it; an unknown id is already stopped."""
        ...

    def observe(self) -> Observation:
        """Return all nodes, and all replicas on them, including ones nobody asked for."""
        ...

    async def logs(self, replica_id: str, tail: int) -> str:
        """Return the last lines the replica's model printed, newest last; empty for an unknown id."""
        ...

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Call ``callback(endpoint_id)`` when a replica of it changed or vanished. A hint, may be lost."""
        ...
