"""Tell the controller once a second, and at once on every change, which replicas are here and how they are."""

from collections.abc import Callable

from servery_common.contracts import subjects
from servery_common.contracts.replicas import ReplicaObservation, WorkerHeartbeat
from servery_common.messaging.port import Signals
from servery_common.service import wait_any
from servery_worker.replicas import Replicas
from servery_worker.usage import UsageMeter
from servery_worker.warm_parents import WarmParents


class Heartbeat:
    """The worker's signal of life."""

    def __init__(
        self,
        bus: Signals,
        replicas: Replicas,
        parents: WarmParents,
        usage: UsageMeter,
        *,
        worker_id: str,
        incarnation: str,
        capacity_slots: int,
        interval: float,
        access_left: Callable[[], float | None],
    ) -> None:
        self._bus = bus
        self._replicas = replicas
        self._parents = parents
        self._usage = usage
        self._worker_id = worker_id
        self._capacity_slots = capacity_slots
        self._interval = interval
        self._incarnation = incarnation
        self._access_left = access_left

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            # Cleared before looking: a change while the signal is sent brings the next beat at once.
            self._replicas.changed.clear()
            await self.beat()
            await wait_any(self._replicas.changed, self._interval)

    async def beat(self) -> None:
        """Tell once."""
        await self._bus.signal(
            subjects.worker_heartbeat(self._worker_id),
            WorkerHeartbeat(
                worker_id=self._worker_id,
                incarnation=self._incarnation,
                capacity_slots=self._capacity_slots,
                replicas=tuple(self._with_usage(seen) for seen in self._replicas.observe()),
                warm_environments=self._parents.warm_keys(),
                warm=self._parents.observe(),
                access_left=self._access_left(),
                warm_memory_bytes=self._parents.memory_bytes,
            ),
        )

    def _with_usage(self, seen: ReplicaObservation) -> ReplicaObservation:
        usage = self._usage.of(seen.replica_id)
        return seen if usage is None else seen.model_copy(update=usage._asdict())
