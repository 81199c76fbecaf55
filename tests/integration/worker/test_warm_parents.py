"""One warm parent per environment, and no more of them than are worth their memory."""

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.worker.scoring_client import ScoringClient
from tests.integration.worker.worker_process import WorkerOrders, WorkerProcess, artifacts

from servery_common.contracts import subjects
from servery_common.contracts.replicas import ModelVerified, VerifyModel, VerifyProgress
from servery_common.contracts.states import ReplicaState
from servery_common.messaging.port import Bus


@pytest.fixture
def worker(nats_url: str, tmp_path: Path) -> Iterator[WorkerProcess]:
    process = WorkerProcess(nats_url, tmp_path / "worker", SERVERY_WORKER_MAX_WARM_ENVIRONMENTS="1")
    yield process
    process.stop()


async def test_replicas_that_start_together_share_one_parent(
    client: ScoringClient, orders: WorkerOrders, obedient: Path
):
    ids = await asyncio.gather(*(orders.launch(obedient, wait=False) for _ in range(3)))
    parents: set[int] = set()
    for replica_id in ids:
        await orders.until_state(replica_id, ReplicaState.READY)
        parents.add((await client.ask(replica_id, "pid")).json["predictions"][1])
    assert len(parents) == 1


async def test_the_least_recently_used_parent_without_runners_goes_first(
    bus: Bus, client: ScoringClient, orders: WorkerOrders, obedient: Path
):
    for key in ("first", "second"):
        order = VerifyModel(build_id=uuid.uuid4().hex, artifacts=artifacts(obedient, key))
        answers = bus.request_stream(
            subjects.worker_verify(), order, [VerifyProgress, ModelVerified], silence=10
        )
        assert [one.ok for one in [a async for a in answers] if isinstance(one, ModelVerified)] == [True]
    await orders.until(lambda beat: beat.warm_environments == ("second",), 5)
    serving = await orders.launch(obedient, artifacts=artifacts(obedient, "second"))
    await orders.launch(obedient, artifacts=artifacts(obedient, "third"))
    # The one that serves is not evicted, however many others are asked for.
    await orders.until(lambda beat: set(beat.warm_environments) == {"second", "third"}, 5)
    assert (await client.ask(serving, "echo")).status == 200
