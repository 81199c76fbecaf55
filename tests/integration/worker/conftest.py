"""A worker on a real NATS, shared by the tests of one module, and the two ends it talks to."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import nats
import pytest
from tests.integration.worker import models
from tests.integration.worker.scoring_client import ScoringClient
from tests.integration.worker.worker_process import WorkerOrders, WorkerProcess

from servery_common.messaging.bus import connect_bus
from servery_common.messaging.port import Bus
from servery_common.settings import NatsSettings


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def obedient(model_directory: Path) -> Path:
    """A model that does what the request says, logged with an example."""
    import pandas as pd

    example = pd.DataFrame({"do": ["echo"]})
    return models.save(model_directory, "obedient", models.OBEDIENT, input_example=example)


@pytest.fixture(scope="session")
def streaming(model_directory: Path) -> Path:
    """A model that streams what the request says."""
    return models.save_streaming(model_directory)


@pytest.fixture(scope="module")
def worker(nats_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    process = WorkerProcess(
        nats_url,
        tmp_path_factory.mktemp("worker"),
        SERVERY_WORKER_DEADLINE_GRACE_SECONDS="0.3",
        # A quarter of what Databricks gives: every kind of model here does with it.
        SERVERY_WORKER_MODEL_MEMORY_BYTES=str(1024**3),
    )
    yield process
    assert process.stop() == 0, process.log_path.read_text()[-4000:]


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with connect_bus(NatsSettings(url=nats_url), name="test") as bus:
        yield bus


@pytest.fixture
async def orders(bus: Bus, worker: WorkerProcess) -> WorkerOrders:
    return await WorkerOrders(bus, worker.id).start()


@pytest.fixture
async def client(nats_url: str) -> AsyncIterator[ScoringClient]:
    connection = await nats.connect(nats_url)
    yield await ScoringClient(connection).start()
    await connection.close()
