"""The replicas of this worker: made, stopped and told about, each order idempotent."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from servery_common.contracts.replicas import (
    Done,
    EnsureReplica,
    ReadReplicaLog,
    ReplicaLaunch,
    ReplicaLog,
    ReplicaObservation,
    StopReplica,
)
from servery_common.contracts.states import ReplicaState
from servery_common.errors import Conflict, NotFound, ResourceExhausted, Unavailable
from servery_common.metering import count_stale_write
from servery_worker.model_log import ModelLog
from servery_worker.replica import Replica

log = structlog.get_logger(__name__)

END_SECONDS = 10.0
"""How long a stopped replica may take to end its process and clear away, before it is cancelled. It takes
milliseconds; a worker that is asked to stop must not wait for ever."""

Spawn = Callable[[str, Coroutine[Any, Any, None]], asyncio.Task[Any]]


class Replicas:
    """All replicas here, also those that failed and wait to be ordered away."""

    def __init__(
        self,
        *,
        capacity_slots: int,
        kept_logs: int,
        spawn: Spawn,
        make: Callable[[ReplicaLaunch, Callable[[], None]], Replica],
        end_seconds: float = END_SECONDS,
    ) -> None:
        self._capacity_slots = capacity_slots
        self._kept_logs = kept_logs
        self._spawn = spawn
        self._make = make
        self._end_seconds = end_seconds
        self._replicas: dict[str, Replica] = {}
        self._running: dict[str, asyncio.Task[Any]] = {}
        self._stopping: dict[str, asyncio.Task[Any]] = {}
        self._old_logs: OrderedDict[str, ModelLog] = OrderedDict()
        self._epoch = 0
        self._draining = False
        self.changed = asyncio.Event()
        """Set on every change of a replica's state; whoever tells of it clears it."""

    async def ensure(self, order: EnsureReplica) -> Done:
        """Make the replica exist. Raises Conflict, Unavailable, ResourceExhausted."""
        launch = order.launch
        self._check_epoch(launch.epoch)
        known = self._replicas.get(launch.replica_id)
        if known is not None:
            known.order_again()
            return Done()
        if self._draining:
            raise Unavailable("This worker is stopping.")
        taken = sum(replica.launch.slots for replica in self._replicas.values())
        if taken + launch.slots > self._capacity_slots:
            raise ResourceExhausted(
                f"This worker hosts {taken} of {self._capacity_slots} slots; {launch.slots} more do not fit."
            )
        replica = self._make(launch, self.changed.set)
        self._replicas[launch.replica_id] = replica
        self._running[launch.replica_id] = self._spawn(f"replica {launch.replica_id}", replica.run())
        self.changed.set()
        return Done()

    async def stop(self, order: StopReplica) -> Done:
        """Begin to drain and stop a replica; an unknown one is already stopped. Raises Conflict."""
        self._check_epoch(order.epoch)
        replica = self._replicas.get(order.replica_id)
        if replica is None or replica.state is ReplicaState.STOPPED:
            return Done()
        if order.replica_id not in self._stopping:
            self._stopping[order.replica_id] = self._spawn(
                f"stop of {order.replica_id}", self._stop(replica, order.grace_seconds)
            )
        return Done()

    async def read_log(self, order: ReadReplicaLog) -> ReplicaLog:
        """What a replica's model printed last. Raises NotFound."""
        replica = self._replicas.get(order.replica_id)
        lines = replica.log if replica is not None else self._old_logs.get(order.replica_id)
        if lines is None:
            raise NotFound(f"No log of replica {order.replica_id} is kept here.")
        return ReplicaLog(replica_id=order.replica_id, text="\n".join(lines.tail(order.tail)))

    def observe(self) -> tuple[ReplicaObservation, ...]:
        """All replicas here. One that stopped is seen once more, as STOPPED."""
        seen = tuple(replica.observe() for replica in self._replicas.values())
        for observation in seen:
            if observation.state is ReplicaState.STOPPED:
                del self._replicas[observation.replica_id]
        return seen

    def pids(self) -> dict[str, int]:
        """The processes that hold models now, by replica id."""
        processes = ((replica_id, replica.pid) for replica_id, replica in self._replicas.items())
        return {replica_id: pid for replica_id, pid in processes if pid is not None}

    def end_excessive(self, replica_id: str, pid: int) -> None:
        """The process of a replica holds more memory than it may."""
        replica = self._replicas.get(replica_id)
        if replica is not None and replica.pid == pid:
            replica.end_excessive()

    async def drain(self, grace: float) -> None:
        """Take nothing new, finish what was accepted for at most ``grace`` seconds, stop everything."""
        self._draining = True
        for replica_id, replica in self._replicas.items():
            if replica_id not in self._stopping and replica.state is not ReplicaState.STOPPED:
                stopping = self._stop(replica, grace)
                self._stopping[replica_id] = self._spawn(f"stop of {replica_id}", stopping)
        if self._stopping:
            await asyncio.wait(self._stopping.values())

    async def _stop(self, replica: Replica, grace: float) -> None:
        replica_id = replica.launch.replica_id
        replica.drain()
        await replica.finished(grace)
        replica.stop()
        running = self._running[replica_id]
        _, unended = await asyncio.wait({running}, timeout=self._end_seconds)
        if unended:
            log.error("replica_not_ended", replica_id=replica_id, seconds=self._end_seconds)
            running.cancel()
        del self._running[replica_id]
        del self._stopping[replica_id]
        self._old_logs[replica_id] = replica.log
        while len(self._old_logs) > self._kept_logs:
            self._old_logs.popitem(last=False)

    def _check_epoch(self, epoch: int) -> None:
        """Orders of a controller that was replaced meanwhile must not undo those of its successor."""
        if epoch < self._epoch:
            count_stale_write("worker")
            raise Conflict(f"The order is of epoch {epoch}; epoch {self._epoch} has begun.")
        self._epoch = epoch
