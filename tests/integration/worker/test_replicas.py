"""Orders of a controller to a real worker."""

import uuid
from pathlib import Path

import pytest
from tests.integration.worker import models
from tests.integration.worker.worker_process import WorkerOrders, WorkerProcess, artifacts

from servery_common.contracts import subjects
from servery_common.contracts.replicas import Done, ReadReplicaLog, ReplicaLaunch, ReplicaLog, StopReplica
from servery_common.contracts.states import ReplicaState
from servery_common.errors import Conflict, NotFound, ResourceExhausted
from servery_common.messaging.port import Bus


def launch(model: Path, *, slots: int = 4, epoch: int = 0) -> ReplicaLaunch:
    return ReplicaLaunch(
        replica_id=uuid.uuid4().hex,
        endpoint_id="e1",
        endpoint_name="test",
        served_entity_id="s1",
        served_entity_name="test-1",
        artifacts=artifacts(model),
        slots=slots,
        epoch=epoch,
    )


async def test_ordering_a_replica_twice_makes_it_once(orders: WorkerOrders, obedient: Path):
    wanted = launch(obedient)
    await orders.ensure(wanted)
    await orders.ensure(wanted)
    await orders.until_state(wanted.replica_id, ReplicaState.READY)
    assert orders.beat is not None
    assert [one.replica_id for one in orders.beat.replicas].count(wanted.replica_id) == 1
    await orders.stop(wanted.replica_id)


async def test_stopping_an_unknown_replica_is_fine(orders: WorkerOrders):
    await orders.stop(uuid.uuid4().hex)


async def test_more_slots_than_the_worker_has_are_refused(orders: WorkerOrders, obedient: Path):
    with pytest.raises(ResourceExhausted):
        await orders.ensure(launch(obedient, slots=100_000))


async def test_a_model_that_cannot_be_loaded_fails_with_its_reason_and_keeps_its_log(
    orders: WorkerOrders, bus: Bus, worker: WorkerProcess, model_directory: Path
):
    model = models.save(
        model_directory, "talks_then_fails", "print('about to fail')\nimport a_package_nobody_has"
    )
    wanted = launch(model)
    await orders.ensure(wanted)
    failed = await orders.until_state(wanted.replica_id, ReplicaState.FAILED)
    assert "a_package_nobody_has" in failed.reason
    await orders.stop(wanted.replica_id)
    await orders.until_state(wanted.replica_id, ReplicaState.STOPPED)
    subject = subjects.worker_log(worker.id)
    kept = await bus.request(subject, ReadReplicaLog(replica_id=wanted.replica_id), ReplicaLog, timeout=5)
    assert "about to fail" in kept.text
    with pytest.raises(NotFound):
        await bus.request(subject, ReadReplicaLog(replica_id="unknown"), ReplicaLog, timeout=5)


async def test_a_replica_that_failed_and_is_ordered_again_is_tried_until_it_is_ready(
    orders: WorkerOrders, model_directory: Path
):
    cause = model_directory / "cause"
    cause.touch()
    source = f"import pathlib\nassert not pathlib.Path({str(cause)!r}).exists(), 'not yet'\n{models.OBEDIENT}"
    wanted = launch(models.save(model_directory, "fails_at_first", source))
    await orders.ensure(wanted)
    failed = await orders.until_state(wanted.replica_id, ReplicaState.FAILED)
    assert "not yet" in failed.reason
    cause.unlink()
    await orders.ensure(wanted)
    await orders.until(
        lambda beat: (
            (wanted.replica_id, ReplicaState.READY) in {(r.replica_id, r.state) for r in beat.replicas}
        )
    )
    await orders.stop(wanted.replica_id)


async def test_orders_of_a_replaced_controller_are_refused(
    orders: WorkerOrders, bus: Bus, worker: WorkerProcess, obedient: Path
):
    # Last in this file: the worker is shared, and from here on refuses older orders.
    await orders.ensure(launch(obedient, epoch=7))
    with pytest.raises(Conflict):
        await orders.ensure(launch(obedient, epoch=6))
    order = StopReplica(replica_id="r1", grace_seconds=1, epoch=6)
    with pytest.raises(Conflict):
        await bus.request(subjects.worker_stop(worker.id), order, Done, timeout=5)
