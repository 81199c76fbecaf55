"""Processes that are killed, and a worker that is asked to stop: nothing is left behind, nothing hangs."""

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.infrastructure import running_nats
from tests.integration.worker.scoring_client import ScoringClient, do_body
from tests.integration.worker.worker_process import (
    WorkerOrders,
    WorkerProcess,
    alive,
    artifacts,
    until_gone,
)
from tests.waiting import until

from servery_common.contracts import subjects
from servery_common.contracts.replicas import ModelVerified, VerifyModel, VerifyProgress
from servery_common.contracts.states import ReplicaState
from servery_common.messaging.bus import connect_bus
from servery_common.messaging.port import Bus
from servery_common.settings import NatsSettings


@pytest.fixture
def own_worker(nats_url: str, tmp_path: Path) -> Iterator[WorkerProcess]:
    """A worker that the test may end."""
    process = WorkerProcess(nats_url, tmp_path / "worker")
    yield process
    process.stop()


async def pids(client: ScoringClient, replica_id: str) -> tuple[int, int]:
    """The runner's and its warm parent's."""
    runner, parent = (await client.ask(replica_id, "pid")).json["predictions"]
    return runner, parent


async def test_a_killed_runner_is_replaced_and_its_requests_are_told(
    client: ScoringClient, orders: WorkerOrders, obedient: Path, tmp_path: Path
):
    replica_id = await orders.launch(obedient)
    runner, parent = await pids(client, replica_id)
    seen = tmp_path / "seen by the model"
    _, lost = await client.send(replica_id, do_body(f"hang:{seen}"))
    await until(seen.exists)
    os.kill(runner, signal.SIGKILL)
    await asyncio.wait_for(lost.done.wait(), 5)
    assert (lost.status, lost.head["lost"]) == (503, True)
    assert "SIGKILL" in lost.json["message"]
    replacement, same_parent = await pids(client, replica_id)
    assert replacement != runner
    assert same_parent == parent
    await until_gone(runner)


async def test_a_killed_warm_parent_takes_its_runners_and_all_come_back(
    client: ScoringClient, orders: WorkerOrders, obedient: Path
):
    replica_id = await orders.launch(obedient)
    runner, parent = await pids(client, replica_id)
    os.kill(parent, signal.SIGKILL)
    await until_gone(runner, parent)
    # A request that reaches the worker before the news of the death counts as lost with the runner.
    await orders.until_state(replica_id, ReplicaState.RESTARTING, 5)
    new_runner, new_parent = await pids(client, replica_id)
    assert new_runner != runner
    assert new_parent != parent


async def test_a_frozen_warm_parent_is_replaced_when_it_is_needed(
    client: ScoringClient, bus: Bus, own_worker: WorkerProcess, obedient: Path
):
    orders = await WorkerOrders(bus, own_worker.id).start()
    replica_id = await orders.launch(obedient)
    runner, parent = await pids(client, replica_id)
    os.kill(parent, signal.SIGSTOP)
    assert (await client.ask(replica_id, "echo")).status == 200, (
        "nothing needs it as long as its runners live"
    )
    os.kill(runner, signal.SIGKILL)
    await until_gone(runner, parent, within=60)
    await orders.until(lambda beat: [one.restarts for one in beat.replicas] == [1])
    await orders.until_state(replica_id, ReplicaState.READY)
    new_runner, new_parent = await pids(client, replica_id)
    assert (new_runner, new_parent) != (runner, parent)


async def test_a_killed_worker_leaves_no_process(
    client: ScoringClient, bus: Bus, own_worker: WorkerProcess, obedient: Path
):
    orders = await WorkerOrders(bus, own_worker.id).start()
    replica_id = await orders.launch(obedient)
    runner, parent = await pids(client, replica_id)
    child = (await client.ask(replica_id, "child")).json["predictions"][0]
    own_worker.process.kill()
    own_worker.process.wait()
    await until_gone(runner, parent, child)


async def test_a_stopping_worker_finishes_accepted_work_and_leaves_no_process(
    client: ScoringClient, bus: Bus, own_worker: WorkerProcess, obedient: Path
):
    orders = await WorkerOrders(bus, own_worker.id).start()
    replica_id = await orders.launch(obedient)
    runner, parent = await pids(client, replica_id)
    _, accepted = await client.send(replica_id, do_body("sleep:1"))
    await asyncio.wait_for(accepted.accepted.wait(), 5)
    own_worker.process.send_signal(signal.SIGTERM)
    await orders.until_state(replica_id, ReplicaState.DRAINING, 5)
    assert (await client.ask(replica_id, "echo")).refused == "draining"
    await asyncio.wait_for(accepted.done.wait(), 5)
    assert accepted.json == {"predictions": ["slept"]}
    # Not stop(): a second SIGTERM means that nobody wants to wait any more.
    assert await asyncio.to_thread(own_worker.process.wait, 20) == 0
    await until_gone(runner, parent)
    assert orders.states[replica_id][-2:] == [ReplicaState.DRAINING, ReplicaState.STOPPED]


async def test_an_environment_that_does_not_survive_a_fork_starts_each_runner_from_nothing(
    client: ScoringClient, orders: WorkerOrders, worker: WorkerProcess, obedient: Path, tmp_path: Path
):
    copy = tmp_path / "copy"
    shutil.copytree(obedient, copy)
    (copy / "requirements.txt").write_text("mlflow\ntensorflow==2.18\n")
    replica_id = await orders.launch(copy)
    runner, parent = await pids(client, replica_id)
    assert parent == worker.pid
    assert "runner_not_forked" in worker.log_path.read_text()
    await orders.stop(replica_id)
    await until_gone(runner)
    assert alive(worker.pid)


async def test_a_worker_that_cannot_make_a_runners_folder_says_so_and_lives(
    client: ScoringClient, bus: Bus, own_worker: WorkerProcess, obedient: Path, tmp_path: Path
):
    orders = await WorkerOrders(bus, own_worker.id).start()
    serving = await orders.launch(obedient)
    scratch = tmp_path / "worker" / "runners"
    scratch.rename(tmp_path / "moved")
    refused = await orders.launch(obedient, wait=False)
    beat = await orders.until(
        lambda beat: any(one.state is ReplicaState.FAILED for one in beat.replicas), within=20
    )
    [failed] = [one for one in beat.replicas if one.replica_id == refused]
    assert failed.reason.startswith("start: No such file or directory")
    assert (await client.ask(serving, "echo")).status == 200


async def test_a_verification_that_finds_no_folder_for_its_runner_says_so(obedient: Path, tmp_path: Path):
    # With a NATS of its own: any worker may verify, and this has to be the one without the folder.
    with running_nats() as server:
        worker = WorkerProcess(server.url, tmp_path / "worker")
        try:
            async with connect_bus(NatsSettings(url=server.url), name="test") as bus:
                await WorkerOrders(bus, worker.id).start()
                (tmp_path / "worker" / "runners").rename(tmp_path / "moved")
                order = VerifyModel(build_id="b1", artifacts=artifacts(obedient))
                answers = bus.request_stream(
                    subjects.worker_verify(), order, [VerifyProgress, ModelVerified], silence=10
                )
                [verdict] = [one async for one in answers if isinstance(one, ModelVerified)]
        finally:
            worker.stop()
    assert (verdict.ok, verdict.stage) == (False, "start")
    assert "No such file or directory" in verdict.error
