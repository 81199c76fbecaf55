"""The same body gets the same answer from a replica and from MLflow's own server."""

import asyncio
import json
import re
from pathlib import Path

import mlflow.pyfunc
import pytest
from mlflow.pyfunc import scoring_server
from starlette.testclient import TestClient
from tests.integration.worker.scoring_client import ScoringClient, do_body
from tests.integration.worker.worker_process import WorkerOrders

from servery_common.messaging.port import Bus

JSON = "application/json"
REQUESTS = [
    (do_body("echo"), JSON),
    (b'{"dataframe_records": [{"do": "echo"}]}', JSON),
    (b'{"inputs": {"do": ["echo"]}}', JSON),
    (b'{"instances": [{"do": "echo"}]}', JSON + "; charset=utf-8"),
    (b'{"inputs": {"do": ["echo"]}, "params": {"a": 1}}', JSON),
    (b"do\necho\n", "text/csv"),
    (b"do\necho\n", "text/csv; charset=latin-1"),
    (b"x", "text/html"),
    (b"{}", JSON + "; odd=1"),
    (b"not json", JSON),
    (b"\xff\xfe", JSON),
    (b"[1, 2]", JSON),
    (b'"text"', JSON),
    (b"{}", JSON),
    (b'{"inputs": [1], "instances": [1]}', JSON),
    (b'{"dataframe_split": {"columns": ["other"], "data": [["x"]]}}', JSON),
    (b'{"dataframe_split": "nothing"}', JSON),
    (do_body("raise:no"), JSON),
]


@pytest.fixture
def mlflow_server(obedient: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    # MLflow sets it and leaves it; this way it is undone.
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    return TestClient(scoring_server.init(mlflow.pyfunc.load_model(str(obedient))))


async def test_every_request_is_answered_as_mlflow_answers_it(
    client: ScoringClient, orders: WorkerOrders, bus: Bus, obedient: Path, mlflow_server: TestClient
):
    replica_id = await orders.launch(obedient)
    for body, content_type in REQUESTS:
        headers = {"content-type": content_type}
        expected = await asyncio.to_thread(mlflow_server.post, "/invocations", content=body, headers=headers)
        _, call = await client.send(replica_id, body, ct=content_type)
        await asyncio.wait_for(call.done.wait(), 10)
        seen = (call.status, call.content_type, comparable(bytes(call.answer)))
        wanted_type = expected.headers["content-type"].partition(";")[0]
        assert seen == (expected.status_code, wanted_type, comparable(expected.content)), body
    await orders.stop(replica_id)


def comparable(answer: bytes) -> object:
    """Without what depends on the process: lines in the stack trace, the order in which a set is printed."""
    try:
        parsed = json.loads(answer)
    except ValueError:
        return answer
    parsed.pop("stack_trace", None)
    if "message" in parsed:
        parsed["message"] = sorted(re.findall(r"\w+", parsed["message"]))
    return parsed
