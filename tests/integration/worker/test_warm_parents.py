"""One warm parent per environment, no more of them than the memory set aside holds, and again after a restart."""

import asyncio
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.worker.scoring_client import ScoringClient
from tests.integration.worker.worker_process import WorkerOrders, WorkerProcess, artifacts, until_gone
from tests.waiting import until

from servery_common.contracts import subjects
from servery_common.contracts.replicas import ModelVerified, VerifyModel, VerifyProgress, WorkerHeartbeat
from servery_common.contracts.states import ReplicaState
from servery_common.messaging.port import Bus
from servery_worker.remembered import WarmList

Start = Callable[[int], WorkerProcess]


@pytest.fixture
def start(nats_url: str, tmp_path: Path) -> Iterator[Start]:
    """Start a worker whose warm parents may hold so much; the second one takes the place of the first."""
    started: list[WorkerProcess] = []

    def run(memory_bytes: int) -> WorkerProcess:
        worker = WorkerProcess(
            nats_url, tmp_path / "worker", SERVERY_WORKER_WARM_MEMORY_BYTES=str(memory_bytes)
        )
        started.append(worker)
        return worker

    yield run
    for worker in started:
        worker.stop()


@pytest.fixture
def worker(start: Start) -> WorkerProcess:
    return start(0)


async def verify(bus: Bus, model: Path, key: str) -> None:
    """Have the model verified in this environment: its warm parent has no runner afterwards."""
    order = VerifyModel(build_id=uuid.uuid4().hex, artifacts=artifacts(model, key))
    answers = bus.request_stream(subjects.worker_verify(), order, [VerifyProgress, ModelVerified], silence=10)
    assert [one.ok for one in [a async for a in answers] if isinstance(one, ModelVerified)] == [True]


async def warm(orders: WorkerOrders, *keys: str) -> WorkerHeartbeat:
    """The first heartbeat that tells of these environments and no others."""
    return await orders.until(lambda beat: set(beat.warm_environments) == set(keys), 60)


async def test_replicas_that_start_together_share_one_parent(
    client: ScoringClient, orders: WorkerOrders, obedient: Path
):
    ids = await asyncio.gather(*(orders.launch(obedient, wait=False) for _ in range(3)))
    parents: set[int] = set()
    for replica_id in ids:
        await orders.until_state(replica_id, ReplicaState.READY)
        parents.add((await client.ask(replica_id, "pid")).json["predictions"][1])
    assert len(parents) == 1


async def test_one_with_replicas_stays_whatever_the_budget_and_ends_with_the_last_of_them(
    client: ScoringClient, orders: WorkerOrders, obedient: Path
):
    replica_id = await orders.launch(obedient, artifacts=artifacts(obedient, "busy"))
    await orders.launch(obedient, artifacts=artifacts(obedient, "other"))
    beat = await warm(orders, "busy", "other")
    assert {one.environment_key: one.runners for one in beat.warm} == {"busy": 1, "other": 1}
    assert all(one.memory_bytes > 10_000_000 and one.unused_seconds == 0 for one in beat.warm)
    assert (await client.ask(replica_id, "echo")).status == 200
    await orders.stop(replica_id)
    await warm(orders, "other")


async def test_the_least_recently_used_ends_first_and_is_started_anew_saying_why(
    bus: Bus, start: Start, obedient: Path
):
    # Enough for one, and not for two, of an environment with MLflow.
    worker = start(180_000_000)
    orders = await WorkerOrders(bus, worker.id).start()
    await verify(bus, obedient, "first")
    [one] = (await warm(orders, "first")).warm
    assert 90_000_000 < one.memory_bytes < 180_000_000
    await verify(bus, obedient, "second")
    beat = await warm(orders, "second")
    assert beat.warm_memory_bytes == 180_000_000
    await orders.launch(obedient, artifacts=artifacts(obedient, "first"))
    # The one in use does not count: both have room.
    await warm(orders, "first", "second")
    log = worker.log_path.read_text()
    assert "was ended to keep within SERVERY_WORKER_WARM_MEMORY_BYTES" in log


async def test_one_that_died_is_started_anew_when_it_is_needed(
    client: ScoringClient, bus: Bus, start: Start, obedient: Path
):
    orders = await WorkerOrders(bus, start(10**9).id).start()
    replica_id = await orders.launch(obedient)
    _, parent = (await client.ask(replica_id, "pid")).json["predictions"]
    await orders.stop(replica_id)
    await orders.until_state(replica_id, ReplicaState.STOPPED)
    os.kill(parent, signal.SIGKILL)
    await until_gone(parent)
    await warm(orders)
    again = await orders.launch(obedient)
    assert (await client.ask(again, "echo")).status == 200
    await warm(orders, "testenvironment")


async def test_what_was_warm_is_warm_again_after_a_restart_as_far_as_the_budget_goes(
    bus: Bus, start: Start, obedient: Path, tmp_path: Path
):
    worker = start(10**9)
    orders = await WorkerOrders(bus, worker.id).start()
    for key in ("oldest", "older", "newest"):
        await verify(bus, obedient, key)
    beat = await warm(orders, "oldest", "older", "newest")
    of_one = max(one.memory_bytes for one in beat.warm)
    written = WarmList(tmp_path / "worker" / "warm_environments.json")
    await until(lambda: len(written.read()) == 3)
    worker.process.kill()
    worker.process.wait()
    # The same data directory; WorkerProcess gives it another id.
    successor = start(int(of_one * 2.5))
    orders = await WorkerOrders(bus, successor.id).start()
    beat = await warm(orders, "older", "newest")
    assert [one.environment_key for one in beat.warm] == ["newest", "older"]
    assert [one.runners for one in beat.warm] == [0, 0]
