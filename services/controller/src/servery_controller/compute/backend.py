"""The compute port: where replicas run. Implementations: ``process``; ``memory`` for tests.

All verbs are idempotent and quick; none waits for a replica to become ready. What became of an order is
seen in ``observe``.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from servery_common.contracts.replicas import ReplicaLaunch
from servery_controller.domain.endpoint import Observation


class ComputeBackend(Protocol):
    """Make replicas exist and cease."""

    async def ensure(self, launch: ReplicaLaunch) -> None:
        """Make the replica exist. Calling it again for the same id changes nothing.

        Raises Unavailable when nothing can take it now, with the reason for people.
        """
        ...

    async def stop(self, replica_id: str, grace: timedelta, epoch: int) -> None:
        """Let it finish what it accepted for at most ``grace`` and stop it; an unknown id is already stopped."""
        ...

    def observe(self) -> Observation:
        """Return all replicas this backend knows, including ones nobody asked for."""
        ...

    async def logs(self, replica_id: str, tail: int) -> str:
        """Return the last lines the replica's model printed, newest last; empty for an unknown id."""
        ...

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Call ``callback(endpoint_id)`` when a replica of it changed state. A hint, may be lost."""
        ...
