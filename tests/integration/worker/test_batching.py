"""Requests that wait are predicted together, and no answer shows it."""

import asyncio
import json
from pathlib import Path

import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from tests.integration.worker import models
from tests.integration.worker.scoring_client import Call, ScoringClient, do_body
from tests.integration.worker.worker_process import WorkerOrders, WorkerProcess
from tests.waiting import until

from servery_common.contracts import subjects
from servery_common.contracts.replicas import ReadReplicaLog, ReplicaLog
from servery_common.contracts.states import ReplicaState
from servery_common.messaging.port import Bus

EXAMPLE = pd.DataFrame({"do": ["a", "b"]})
DATED = ModelSignature(inputs=Schema([ColSpec("string", "do"), ColSpec("datetime", "when")]))


def save(directory: Path, name: str, *, counts: bool = False, example: pd.DataFrame | None = EXAMPLE) -> Path:
    code = models.TOGETHER.replace("COUNTS", str(counts))
    return models.save(directory, name, code, input_example=None if example is None else example)


@pytest.fixture(scope="module")
def row_wise(model_directory: Path) -> Path:
    return save(model_directory, "row_wise")


@pytest.fixture(scope="module")
def counting(model_directory: Path) -> Path:
    """Not row-wise: its answers tell how many rows it was given."""
    return save(model_directory, "counting", counts=True)


class OneAtATime:
    """A replica that predicts one thing at a time, kept busy until ``ask`` has sent everything."""

    def __init__(self, client: ScoringClient, orders: WorkerOrders, directory: Path) -> None:
        self._client = client
        self._orders = orders
        self._record = directory / "record"
        self._gate = directory / "gate"

    async def launch(self, model: Path, **environment_vars: str) -> str:
        variables = {"RECORD": str(self._record), **environment_vars}
        self.replica_id = await self._orders.launch(model, slots=1, environment_vars=variables)
        return self.replica_id

    async def occupy(self) -> Call:
        """Have it predict something that does not end before ``release``."""
        self._gate.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)
        _, busy = await self._client.send(self.replica_id, do_body(f"wait:{self._gate}"))
        await until(self._record.exists)
        return busy

    async def release(self, *calls: Call) -> None:
        """Let it go on, and wait until these are answered."""
        self._gate.touch()
        for call in calls:
            await asyncio.wait_for(call.done.wait(), 20)

    async def ask(self, *rows: str | bytes) -> list[Call]:
        """Send these, or whole bodies, while the model is busy; return the finished calls."""
        busy = await self.occupy()
        bodies = [do_body(row) if isinstance(row, str) else row for row in rows]
        calls = [(await self._client.send(self.replica_id, body))[1] for body in bodies]
        for call in calls:
            await asyncio.wait_for(call.accepted.wait(), 10)
        await self.release(busy, *calls)
        return calls

    @property
    def sizes(self) -> list[int]:
        """Rows of each prediction since it was occupied, its first one included."""
        return [int(line) for line in self._record.read_text().split()]


@pytest.fixture
def one_at_a_time(client: ScoringClient, orders: WorkerOrders, tmp_path: Path) -> OneAtATime:
    return OneAtATime(client, orders, tmp_path)


async def test_what_waits_is_predicted_together_and_answered_as_if_alone(
    one_at_a_time: OneAtATime, row_wise: Path
):
    await one_at_a_time.launch(row_wise)
    calls = await one_at_a_time.ask(*"abcde")
    assert [call.json for call in calls] == [{"predictions": [letter]} for letter in "ABCDE"]
    assert one_at_a_time.sizes == [1, 5]


async def test_a_bad_row_fails_by_itself(one_at_a_time: OneAtATime, row_wise: Path):
    await one_at_a_time.launch(row_wise)
    good, bad, fine = await one_at_a_time.ask("good", "raise:a bad row", "fine")
    assert (good.json, fine.json) == ({"predictions": ["GOOD"]}, {"predictions": ["FINE"]})
    assert bad.status == 400
    assert "a bad row" in bad.json["stack_trace"]
    assert one_at_a_time.sizes == [1, 3, 1, 1, 1]


@pytest.mark.parametrize(
    "body", [b'{"dataframe_split": ' + b"[" * 2000, b'{"stream": true, "inputs": ' + b"[" * 2000]
)
async def test_a_body_that_is_nested_too_deep_is_refused_by_itself(
    one_at_a_time: OneAtATime, row_wise: Path, body: bytes
):
    await one_at_a_time.launch(row_wise)
    good, deep, fine = await one_at_a_time.ask("good", body, "fine")
    assert (good.json, fine.json) == ({"predictions": ["GOOD"]}, {"predictions": ["FINE"]})
    assert deep.status == 400
    assert "recursion" in deep.json["message"]
    assert one_at_a_time.sizes == [1, 2]


async def test_what_was_not_tried_is_predicted_alone(one_at_a_time: OneAtATime, row_wise: Path):
    await one_at_a_time.launch(row_wise)
    numbered = {"dataframe_split": {"columns": ["do"], "data": [["n"]], "index": [7]}}
    more = {"dataframe_records": [{"do": "m", "other": 1}]}
    with_params = {"dataframe_records": [{"do": "p"}], "params": {"a": 1}}
    bodies = [json.dumps(content).encode() for content in (numbered, more, with_params)]
    calls = await one_at_a_time.ask("a", *bodies, "b", *(b"\xef\xbb\xbf" + do_body("c"), do_body("d")))
    assert [call.json["predictions"] for call in calls if call.status == 200] == [[one] for one in "ANMPBCD"]
    assert sorted(one_at_a_time.sizes) == [1, 1, 1, 1, 1, 3]


@pytest.mark.parametrize("wish", [{}, {"SERVERY_BATCHING": "auto"}])
async def test_a_model_that_is_not_row_wise_is_noticed_and_served_request_by_request(
    one_at_a_time: OneAtATime, client: ScoringClient, counting: Path, wish: dict[str, str]
):
    replica_id = await one_at_a_time.launch(counting, **wish)
    busy = await one_at_a_time.occupy()
    _, call = await client.send(replica_id, do_body("x"))
    await asyncio.wait_for(call.done.wait(), 10)
    assert call.refused == "busy"
    await one_at_a_time.release(busy)
    assert busy.json["predictions"][0].endswith(" of 1")


async def test_what_a_served_entity_wishes_overrules_what_was_found_out(
    one_at_a_time: OneAtATime, counting: Path, row_wise: Path
):
    await one_at_a_time.launch(counting, SERVERY_BATCHING="on")
    assert [call.json["predictions"] for call in await one_at_a_time.ask("x", "y")] == [
        ["X of 2"],
        ["Y of 2"],
    ]


async def test_a_replica_says_how_many_requests_it_takes(
    orders: WorkerOrders, model_directory: Path, row_wise: Path, counting: Path
):
    dated = models.save(model_directory, "dated", models.TOGETHER, signature=DATED)
    takes = {}
    for name, model, wish in (
        ("row-wise", row_wise, {}),
        ("not row-wise", counting, {}),
        ("switched off", row_wise, {"SERVERY_BATCHING": "off"}),
        ("dates", dated, {}),
        ("dates, switched on", dated, {"SERVERY_BATCHING": "on"}),
    ):
        replica_id = await orders.launch(model, slots=2, environment_vars=wish)
        seen = await orders.until_state(replica_id, ReplicaState.READY)
        takes[name] = (seen.slots, seen.max_in_flight)
        await orders.stop(replica_id, grace=0.0)
    assert takes.pop("row-wise") == (2, 64)
    assert len(takes) == 4
    assert set(takes.values()) == {(2, 2)}


async def test_mlflow_advises_nobody_on_the_requests_of_the_trial(
    orders: WorkerOrders, worker: WorkerProcess, bus: Bus, client: ScoringClient, model_directory: Path
):
    """MLflow refuses some of them, of a model of named numbers, and has a warning about `instances` for each."""
    signature = ModelSignature(inputs=Schema([ColSpec("double", "x")]))
    model = models.save(model_directory, "numbers", models.ONES, signature=signature)
    replica_id = await orders.launch(model)
    await orders.until_state(replica_id, ReplicaState.READY)

    async def printed() -> str:
        order = ReadReplicaLog(replica_id=replica_id, tail=100)
        return (await bus.request(subjects.worker_log(worker.id), order, ReplicaLog, timeout=5)).text

    assert "batching: on" in await printed()
    assert "scoring_server" not in await printed()
    _, call = await client.send(replica_id, b'{"instances": [{"y": 1.0}]}')
    await asyncio.wait_for(call.done.wait(), 20)
    assert call.status == 400
    async with asyncio.timeout(20):
        while "scoring_server" not in (text := await printed()):
            assert "batching: on" in text
            await asyncio.sleep(0.05)


async def test_after_a_process_died_under_several_the_one_that_did_it_is_found(
    one_at_a_time: OneAtATime, row_wise: Path, client: ScoringClient
):
    replica_id = await one_at_a_time.launch(row_wise)
    good, bad = await one_at_a_time.ask("good", "exit")
    assert [(call.status, call.head.get("lost")) for call in (good, bad)] == [(503, True), (503, True)]
    again = [(await client.send(replica_id, do_body(row)))[1] for row in ("good", "exit")]
    for call in again:
        await asyncio.wait_for(call.done.wait(), 20)
    assert [call.status for call in again] == [200, 400]
    assert "ended its process on this request" in again[1].json["message"]
