"""What a worker tells of the processor and memory its replicas use."""

from pathlib import Path

import psutil
from tests.integration.worker.worker_process import WorkerOrders

from servery_common.contracts.replicas import ReplicaObservation, WorkerHeartbeat


def seen(beat: WorkerHeartbeat, replica_id: str) -> ReplicaObservation:
    return next(one for one in beat.replicas if one.replica_id == replica_id)


async def test_heartbeats_tell_what_the_process_of_each_replica_uses(
    orders: WorkerOrders, obedient: Path
) -> None:
    replica_id = await orders.launch(obedient)
    beat = await orders.until(lambda beat: seen(beat, replica_id).cpu_percent is not None)
    replica = seen(beat, replica_id)
    assert replica.cpu_percent is not None
    assert replica.memory_bytes is not None
    assert replica.memory_limit_bytes is not None
    assert 0 <= replica.cpu_percent <= 100
    # Python with pandas and MLflow, far from what the machine has.
    assert 30 * 1024**2 < replica.memory_bytes < replica.memory_limit_bytes
    assert replica.memory_limit_bytes <= psutil.virtual_memory().total
    await orders.stop(replica_id)
