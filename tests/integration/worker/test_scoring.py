"""Requests through a real NATS, a real worker and runners forked in a real model environment."""

import asyncio
import re
import time
from pathlib import Path

import pytest
from tests.integration.worker.scoring_client import ScoringClient, do_body
from tests.integration.worker.worker_process import WorkerOrders, WorkerProcess, alive, until_gone
from tests.waiting import until

from servery_common.contracts import frames, subjects
from servery_common.contracts.replicas import ReadReplicaLog, ReplicaLog
from servery_common.contracts.states import ReplicaState
from servery_common.messaging.port import Bus


@pytest.fixture
async def replica(orders: WorkerOrders, obedient: Path):
    replica_id = await orders.launch(obedient)
    yield replica_id
    await orders.stop(replica_id, grace=0.0)


async def test_answers_like_mlflow(client: ScoringClient, replica: str):
    call = await client.ask(replica, "echo")
    assert (call.status, call.content_type, call.json) == (200, "application/json", {"predictions": ["echo"]})
    assert call.accepted.is_set()


async def test_tells_how_long_the_model_predicted(client: ScoringClient, replica: str):
    call = await client.ask(replica, "sleep:0.05")
    assert call.head["p"] >= 50_000


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{not json", 400, "BAD_REQUEST"),
        (b'{"columns": []}', 400, "BAD_REQUEST"),
        (b'{"dataframe_split": {"columns": ["other"], "data": [["x"]]}}', 400, "INVALID_PARAMETER_VALUE"),
        (do_body("raise:nothing works"), 400, "BAD_REQUEST"),
        (do_body("sysexit:enough"), 400, "BAD_REQUEST"),
        (do_body("object"), 400, "BAD_REQUEST"),
    ],
)
async def test_what_goes_wrong_in_a_request_is_its_answer(
    client: ScoringClient, replica: str, body: bytes, status: int, code: str
):
    _, call = await client.send(replica, body)
    await asyncio.wait_for(call.done.wait(), 10)
    assert (call.status, call.json["error_code"]) == (status, code)
    assert (await client.ask(replica, "echo")).status == 200


async def test_a_raising_model_is_shown_its_traceback(client: ScoringClient, replica: str):
    call = await client.ask(replica, "raise:nothing works")
    assert call.json["message"].startswith("Encountered an unexpected error while evaluating the model.")
    assert call.json["stack_trace"].strip().endswith("ValueError: nothing works")


async def test_an_unknown_content_type_is_refused_as_mlflow_does(client: ScoringClient, replica: str):
    _, call = await client.send(replica, b"x", ct="text/html")
    await asyncio.wait_for(call.done.wait(), 10)
    assert (call.status, call.content_type) == (415, "text/plain")


async def test_csv_is_read(client: ScoringClient, replica: str):
    _, call = await client.send(replica, b"do\necho\n", ct="text/csv")
    await asyncio.wait_for(call.done.wait(), 10)
    assert call.json == {"predictions": ["echo"]}


async def test_large_bodies_and_answers_arrive_whole_and_small_ones_pass_them(
    client: ScoringClient, replica: str
):
    size = 12 * 1024 * 1024
    _, large = await client.send(replica, do_body("length:" + "x" * size))
    small = await client.ask(replica, "echo")
    assert small.status == 200
    await asyncio.wait_for(large.done.wait(), 30)
    assert large.json == {"predictions": [size]}
    answer = await client.ask(replica, f"big:{size}")
    assert len(answer.json["predictions"][0]) == size


async def test_a_dying_model_loses_only_its_own_requests_and_the_next_one_works(
    client: ScoringClient, orders: WorkerOrders, obedient: Path, replica: str
):
    other = await orders.launch(obedient)
    _, bystander = await client.send(other, do_body("sleep:0.5"))
    _, colleague = await client.send(replica, do_body("sleep:5"))
    assert (await client.ask(replica, "echo")).status == 200
    died = await client.ask(replica, "exit:3")
    assert (died.status, died.head["lost"]) == (503, True)
    assert died.json["error_code"] == "TEMPORARILY_UNAVAILABLE"
    assert "exited with status 3" in died.json["message"]
    await asyncio.wait_for(colleague.done.wait(), 2)
    assert colleague.head["lost"] is True
    assert (await client.ask(replica, "echo")).status == 200
    await asyncio.wait_for(bystander.done.wait(), 5)
    assert bystander.json == {"predictions": ["slept"]}
    assert ReplicaState.RESTARTING in orders.states[replica]
    assert ReplicaState.RESTARTING not in orders.states[other]


async def test_a_request_past_its_deadline_is_answered_and_its_runner_replaced(
    client: ScoringClient, orders: WorkerOrders, replica: str
):
    before = (await client.ask(replica, "pid")).json["predictions"][0]
    hung = await client.ask(replica, "sleep:600", ttl=200)
    assert (hung.status, hung.json["error_code"]) == (504, "DEADLINE_EXCEEDED")
    after = (await client.ask(replica, "pid")).json["predictions"][0]
    assert after != before
    await until_gone(before)
    assert (await orders.until_state(replica, ReplicaState.READY)).restarts == 1


async def test_an_expired_request_is_refused_unexecuted(client: ScoringClient, replica: str):
    assert (await client.ask(replica, "echo", ttl=0)).refused == "expired"


async def test_a_request_its_gateway_gave_to_another_replica_meanwhile_is_refused_unexecuted(
    client: ScoringClient, replica: str
):
    now = int(time.time() * 1000)
    assert (await client.ask(replica, "echo", at=now)).refused is None
    assert (await client.ask(replica, "echo", at=now - 5000)).refused == "expired"
    assert (await client.ask(replica, "echo", at=int(time.time() * 1000))).refused is None


async def test_a_request_alone_in_the_process_it_ended_is_the_models_failure(
    client: ScoringClient, replica: str
):
    died = await client.ask(replica, "exit:3")
    assert (died.status, died.json["error_code"]) == (400, "BAD_REQUEST")
    assert "exited with status 3" in died.json["message"]
    assert (await client.ask(replica, "echo")).status == 200


async def test_more_requests_than_slots_are_refused(client: ScoringClient, replica: str):
    calls = [(await client.send(replica, do_body("sleep:0.5")))[1] for _ in range(4)]
    assert (await client.ask(replica, "echo")).refused == "busy"
    for call in calls:
        await asyncio.wait_for(call.done.wait(), 5)
    assert (await client.ask(replica, "echo")).status == 200


async def test_a_cancelled_request_keeps_its_slot_until_it_ends_and_is_not_answered(
    client: ScoringClient, orders: WorkerOrders, obedient: Path, tmp_path: Path
):
    single = await orders.launch(obedient, slots=1)
    begun = tmp_path / "begun"
    number, cancelled = await client.send(single, do_body(f"sleep:1:{begun}"))
    await until(begun.exists)
    await client.cancel(number)
    assert (await client.ask(single, "echo")).refused == "busy"
    for _ in range(100):
        call = await client.ask(single, "echo")
        if call.refused is None:
            break
        await asyncio.sleep(0.05)
    assert call.status == 200
    assert not cancelled.done.is_set()


async def test_a_second_replica_is_forked_from_the_same_parent(
    client: ScoringClient, orders: WorkerOrders, worker: WorkerProcess, obedient: Path, replica: str
):
    second = await orders.launch(obedient)
    first_pid, first_parent = (await client.ask(replica, "pid")).json["predictions"]
    second_pid, second_parent = (await client.ask(second, "pid")).json["predictions"]
    assert first_parent == second_parent != worker.pid
    assert first_pid != second_pid
    assert orders.beat is not None
    assert orders.beat.warm_environments == ("testenvironment",)


async def test_a_model_sees_no_secret_and_inherits_no_connection(client: ScoringClient, replica: str):
    names = (await client.ask(replica, "env")).json["predictions"]
    assert not [name for name in names if name.startswith(("SERVERY_", "NATS", "OTEL_", "MLFLOW_TRACKING"))]
    links = (await client.ask(replica, "fds")).json["predictions"][0]
    assert links.pop("0") == "/dev/null"
    assert links["1"] == links["2"]
    assert links.pop("1").startswith("pipe:")
    links.pop("2")
    # The descriptor that listed the directory is gone by the time it is asked for its target.
    ours = [target for target in links.values() if "/proc/" not in target]
    # The channel to its agent, and the table that says what it has begun.
    assert sorted(re.sub(r"\[.*|.*/(begun-)\w+( \(deleted\))?", r"\1", target) for target in ours) == [
        "begun-",
        "socket:",
    ]


async def test_bodies_nested_deeper_than_can_be_read_are_refused_and_cost_no_thread(
    client: ScoringClient, orders: WorkerOrders, obedient: Path
):
    single = await orders.launch(obedient, slots=1)
    for key in (b"dataframe_split", b"instances", b"stream"):
        _, call = await client.send(single, b'{"%b": ' % key + b"[" * 5000)
        await asyncio.wait_for(call.done.wait(), 20)
        assert call.status == 400
    assert (await client.ask(single, "echo")).status == 200


async def test_a_model_gets_its_own_environment_variables(
    client: ScoringClient, orders: WorkerOrders, obedient: Path, replica: str
):
    own = await orders.launch(obedient, environment_vars={"TEAM_TOKEN": "abc"})
    assert (await client.ask(own, "getenv:TEAM_TOKEN")).json == {"predictions": ["abc"]}
    assert (await client.ask(replica, "getenv:TEAM_TOKEN")).json == {"predictions": [None]}
    assert (await client.ask(own, "getenv:IS_IN_DB_MODEL_SERVING_ENV")).json == {"predictions": ["true"]}


async def test_a_model_that_prints_without_end_serves_and_its_last_lines_are_kept(
    client: ScoringClient, bus: Bus, worker: WorkerProcess, replica: str
):
    _, printing = await client.send(replica, do_body("print:20000"))
    assert (await client.ask(replica, "echo")).status == 200
    await asyncio.wait_for(printing.done.wait(), 20)
    assert printing.json == {"predictions": ["printed"]}
    order = ReadReplicaLog(replica_id=replica, tail=1)
    for _ in range(100):
        kept = await bus.request(subjects.worker_log(worker.id), order, ReplicaLog, timeout=5)
        if "line 19999" in kept.text:
            break
        await asyncio.sleep(0.05)
    assert kept.text == "line 19999 " + "." * 100


async def test_a_stopped_replica_finishes_what_it_accepted(
    client: ScoringClient, orders: WorkerOrders, obedient: Path
):
    replica_id = await orders.launch(obedient)
    pid = (await client.ask(replica_id, "pid")).json["predictions"][0]
    _, accepted = await client.send(replica_id, do_body("sleep:0.6"))
    await asyncio.wait_for(accepted.accepted.wait(), 5)
    await orders.stop(replica_id, grace=10)
    await orders.until_state(replica_id, ReplicaState.DRAINING, 5)
    assert (await client.ask(replica_id, "echo")).refused == "draining"
    await asyncio.wait_for(accepted.done.wait(), 5)
    assert accepted.json == {"predictions": ["slept"]}
    await orders.until_state(replica_id, ReplicaState.STOPPED, 5)
    await until_gone(pid)


async def test_processes_a_model_started_end_with_its_runner(
    client: ScoringClient, orders: WorkerOrders, obedient: Path
):
    replica_id = await orders.launch(obedient)
    child = (await client.ask(replica_id, "child")).json["predictions"][0]
    assert alive(child)
    await client.ask(replica_id, "exit:0")
    await until_gone(child)


async def test_a_frame_that_cannot_be_read_disturbs_nobody(client: ScoringClient, bus: Bus, replica: str):
    nats = bus.nats  # type: ignore[attr-defined]
    await nats.publish(subjects.infer(replica), b"nonsense", reply="servery.replies.x")
    huge = frames.encode(frames.REQUEST, 1, {"total": 10**12, "ttl": 1000}, b"x")
    await nats.publish(subjects.infer(replica), huge, reply="servery.replies.x")
    assert (await client.ask(replica, "echo")).status == 200
