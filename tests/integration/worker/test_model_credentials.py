"""What a model's process is given to act as its creator: variables, and a token file that is renewed."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.integration.worker import models
from tests.integration.worker.scoring_client import ScoringClient
from tests.integration.worker.test_verification import verify
from tests.integration.worker.worker_process import WorkerOrders, WorkerProcess
from tests.waiting import until

from servery_common.contracts import subjects
from servery_common.contracts.access import IssueModelToken, ModelTokenIssued
from servery_common.contracts.states import ReplicaState
from servery_common.errors import Unavailable
from servery_common.messaging.bus import connect_bus
from servery_common.messaging.port import Bus
from servery_common.settings import NatsSettings

HOST = "http://gateway.example:8080"

ASKS_WHEN_LOADED = """
import mlflow
from databricks.sdk.core import Config
from mlflow.pyfunc import PythonModel

config = Config()
print("loading as", config.host, config.authenticate()["Authorization"])

class Asks(PythonModel):
    def predict(self, context, model_input, params=None):
        return [Config().authenticate()["Authorization"]]

mlflow.models.set_model(Asks())
"""


class Issuer:
    """A controller that issues tokens, named by entity and number, of a short life; or is away."""

    def __init__(self) -> None:
        self.lifetime = 3600.0
        self.away = False
        self.issued: list[str] = []

    async def issue(self, request: IssueModelToken) -> ModelTokenIssued:
        if self.away:
            raise Unavailable("The controller is away.")
        self.issued.append(f"{request.served_entity_id}-{len(self.issued) + 1}")
        expires_at_ms = int((time.time() + self.lifetime) * 1000)
        return ModelTokenIssued(token=self.issued[-1], expires_at_ms=expires_at_ms, host=HOST)


@pytest.fixture
async def issuer(nats_url: str) -> AsyncIterator[Issuer]:
    """On the bus for the time of one test."""
    issuer = Issuer()
    async with connect_bus(NatsSettings(url=nats_url), name="controller") as bus:
        await bus.serve(
            subjects.controller_issue_model_token(),
            IssueModelToken,
            issuer.issue,
            queue=subjects.CONTROLLER_QUEUE,
        )
        yield issuer


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worker")


@pytest.fixture(scope="module")
def worker(nats_url: str, scratch: Path) -> Iterator[WorkerProcess]:
    process = WorkerProcess(nats_url, scratch)
    yield process
    assert process.stop() == 0, process.log_path.read_text()[-4000:]


async def ask(client: ScoringClient, replica_id: str, do: str) -> Any:
    return (await client.ask(replica_id, do)).json["predictions"]


def credentials_in(scratch: Path) -> list[Path]:
    return list((scratch / "runners").glob("credentials-*"))


async def test_a_bare_databricks_client_in_a_model_authenticates_and_the_file_goes_with_the_replica(
    issuer: Issuer, orders: WorkerOrders, client: ScoringClient, obedient: Path, scratch: Path
):
    replica = await orders.launch(obedient, served_entity_id="own")
    assert await ask(client, replica, "databricks") == [HOST, "Bearer own-1"]
    assert await ask(client, replica, "getenv:IS_IN_DATABRICKS_MODEL_SERVING_ENV") == ["true"]
    assert await ask(client, replica, "getenv:DB_MODEL_SERVING_HOST_URL") == [HOST]
    [directory] = credentials_in(scratch)
    assert await ask(client, replica, "getenv:SERVING_CREDENTIALS_DIR") == [str(directory)]
    assert directory.stat().st_mode & 0o777 == 0o700
    await orders.stop(replica)
    await orders.until_state(replica, ReplicaState.STOPPED)
    assert credentials_in(scratch) == []


async def test_the_token_is_renewed_and_kept_while_the_controller_is_away(
    issuer: Issuer, orders: WorkerOrders, client: ScoringClient, obedient: Path
):
    issuer.lifetime = 2.0
    replica = await orders.launch(obedient, served_entity_id="renewed")

    async def until_another(than: str) -> str:
        async with asyncio.timeout(20):
            while (header := (await ask(client, replica, "databricks"))[1]) == than:
                pass
        return header

    second = await until_another(await until_another("none yet"))
    assert second.startswith("Bearer renewed-")
    issuer.away = True
    last = f"Bearer {issuer.issued[-1]}"
    if second != last:
        assert await until_another(second) == last
    # It has expired, but nobody knows a better one.
    assert await ask(client, replica, "databricks") == [HOST, last]
    issuer.away = False
    await until_another(last)
    await orders.stop(replica)


async def test_a_replica_starts_without_a_controller_and_gets_its_token_later(
    issuer: Issuer, orders: WorkerOrders, client: ScoringClient, obedient: Path
):
    issuer.away = True
    replica = await orders.launch(obedient, served_entity_id="late")
    assert await ask(client, replica, "listdir:SERVING_CREDENTIALS_DIR") == [[]]
    issuer.away = False
    await until(lambda: "late-1" in issuer.issued)
    async with asyncio.timeout(10):
        while await ask(client, replica, "listdir:SERVING_CREDENTIALS_DIR") == [[]]:
            pass
    await orders.stop(replica)


async def test_a_runner_that_crashed_is_replaced_with_a_token_and_without_the_controller(
    issuer: Issuer, orders: WorkerOrders, client: ScoringClient, obedient: Path, scratch: Path
):
    replica = await orders.launch(obedient, served_entity_id="crashes")
    issuer.away = True
    await client.ask(replica, "exit:3")
    await orders.until(lambda beat: any(one.restarts for one in beat.replicas if one.replica_id == replica))
    await orders.until_state(replica, ReplicaState.READY)
    assert await ask(client, replica, "databricks") == [HOST, "Bearer crashes-1"]
    await until(lambda: len(credentials_in(scratch)) == 1)
    await orders.stop(replica)
    await until(lambda: credentials_in(scratch) == [])


async def test_models_of_one_environment_have_tokens_of_their_own(
    issuer: Issuer, orders: WorkerOrders, client: ScoringClient, obedient: Path
):
    first = await orders.launch(obedient, served_entity_id="first")
    second = await orders.launch(obedient, served_entity_id="second")
    assert await ask(client, first, "databricks") == [HOST, "Bearer first-1"]
    assert await ask(client, second, "databricks") == [HOST, "Bearer second-2"]
    for replica in (first, second):
        await orders.stop(replica)


async def test_what_a_person_sets_goes_before_what_is_given(
    issuer: Issuer, orders: WorkerOrders, client: ScoringClient, obedient: Path
):
    own = {"DATABRICKS_MODEL_SERVING_HOST_URL": "http://mine", "IS_IN_DB_MODEL_SERVING_ENV": "no"}
    replica = await orders.launch(obedient, environment_vars=own)
    for name, value in own.items():
        assert await ask(client, replica, f"getenv:{name}") == [value]
    await orders.stop(replica)


async def test_a_model_that_is_verified_acts_as_the_same_creator(
    issuer: Issuer, bus: Bus, orders: WorkerOrders, model_directory: Path, scratch: Path
):
    example = pd.DataFrame({"do": ["echo"]})
    model = models.save(model_directory, "asks_when_loaded", ASKS_WHEN_LOADED, input_example=example)
    verdict, lines = await verify(bus, model, served_entity_id="verified")
    assert (verdict.ok, verdict.example_predicted) == (True, True), verdict.error
    assert f"loading as {HOST} Bearer verified-1" in lines
    assert credentials_in(scratch) == []


async def test_a_model_that_fails_with_a_secret_in_its_error_does_not_give_it_away(
    issuer: Issuer, orders: WorkerOrders, model_directory: Path, worker: WorkerProcess
):
    code = "import os\nraise ValueError('cannot log in with ' + os.environ['KEY'])"
    model = models.save(model_directory, "indiscreet", code)
    replica = await orders.launch(model, environment_vars={"KEY": "swordfish-42"}, wait=False)
    failed = await orders.until_state(replica, ReplicaState.FAILED)
    assert "cannot log in with [REDACTED]" in failed.reason
    assert "swordfish-42" not in worker.log_path.read_text()
    await orders.stop(replica)


async def test_no_token_is_in_a_warm_parent_or_in_the_workers_log(
    issuer: Issuer, orders: WorkerOrders, client: ScoringClient, obedient: Path, worker: WorkerProcess
):
    replica = await orders.launch(
        obedient, served_entity_id="quiet", environment_vars={"KEY": "hunter2hunter2"}
    )
    [_, parent] = await ask(client, replica, "pid")
    environment = Path(f"/proc/{parent}/environ").read_bytes()
    assert b"SERVING_CREDENTIALS_DIR" not in environment
    assert b"hunter2hunter2" not in environment
    log = worker.log_path.read_text()
    assert "hunter2hunter2" not in log
    assert "quiet-1" not in log
    await orders.stop(replica)
