"""Both backends with everything they need: a worker process on this machine's NATS, and an engine with NATS in it."""

import asyncio
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import docker
import nats
import pytest
from tests.integration.compute.places import InContainers, Place, Processes, running
from tests.integration.worker import models
from tests.integration.worker.worker_process import WorkerProcess

from servery_common.messaging.bus import connect_bus
from servery_common.settings import NatsSettings

ROOT = Path(__file__).parents[3]
NATS_IMAGE = "nats:2.15.1-alpine"

# What the builder makes for a model, made in seconds: MLflow's own environment, and the model.
MODEL_IMAGE = """
FROM {mlflow} AS mlflow
FROM {worker}
COPY --from=mlflow /opt/servery /opt/environment
COPY obedient /opt/model/obedient
"""


@pytest.fixture(scope="session")
def obedient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that does what the request says."""
    import pandas as pd

    example = pd.DataFrame({"do": ["echo"]})
    return models.save(tmp_path_factory.mktemp("models"), "obedient", models.OBEDIENT, input_example=example)


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"no Docker engine: {error}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def model_image(engine: docker.DockerClient, obedient: Path) -> Iterator[str]:
    """The content id of an image with the worker, an environment and the model."""
    own = uuid.uuid4().hex[:8]
    tags = {service: f"servery-{service}:compute-{own}" for service in ("worker", "mlflow")}
    tag = f"servery-compute-test:{own}"
    try:
        for service, name in tags.items():
            file = str(ROOT / "deploy" / "docker" / "Dockerfile")
            build(name, str(ROOT), "--file", file, "--build-arg", f"SERVICE={service}")
        with tempfile.TemporaryDirectory() as context:
            shutil.copytree(obedient, Path(context, "obedient"))
            Path(context, "Dockerfile").write_text(MODEL_IMAGE.format(**tags))
            build(tag, context)
        yield str(engine.images.get(tag).id)
    finally:
        for name in (tag, *tags.values()):
            subprocess.run(["docker", "rmi", name], capture_output=True, check=False)


def build(tag: str, context: str, *options: str) -> None:
    command = ["docker", "buildx", "build", "--quiet", "--load", "--tag", tag, *options, context]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def nats_container(engine: docker.DockerClient) -> Iterator[tuple[str, str]]:
    """A NATS in a container: its name and where this machine reaches it."""
    name = f"servery-compute-nats-{uuid.uuid4().hex[:8]}"
    ports = {"4222/tcp": ("127.0.0.1", None)}
    container = engine.containers.run(NATS_IMAGE, ["-js"], name=name, detach=True, ports=ports)
    try:
        container.reload()
        yield name, f"nats://127.0.0.1:{container.ports['4222/tcp'][0]['HostPort']}"
    finally:
        container.remove(force=True, v=True)


@pytest.fixture(scope="module")
def worker(nats_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    memory = {"SERVERY_WORKER_MODEL_MEMORY_BYTES": str(1024**3)}
    process = WorkerProcess(nats_url, tmp_path_factory.mktemp("worker"), **memory)
    yield process
    assert process.stop() == 0, process.log_path.read_text()[-4000:]


@pytest.fixture
async def containers(model_image: str, nats_container: tuple[str, str]) -> AsyncIterator[InContainers]:
    """The Docker backend, of an installation of the test's own."""
    name, url = nats_container
    connection = await nats.connect(url)
    async with connect_bus(NatsSettings(url=url), name="test") as bus:
        installation = f"compute-{uuid.uuid4().hex[:8]}"
        place = InContainers(bus, connection, model_image, name, installation)

        async def clean() -> None:
            await asyncio.to_thread(place.remove_everything)

        async with running(place, clean):
            yield place
    await connection.close()


@pytest.fixture
async def processes(nats_url: str, worker: WorkerProcess, obedient: Path) -> AsyncIterator[Processes]:
    """The process backend, with a worker."""
    connection = await nats.connect(nats_url)
    async with connect_bus(NatsSettings(url=nats_url), name="test") as bus:
        place = Processes(bus, connection, worker, obedient)

        async def clean() -> None:
            for replica_id in place.backend.observe().replicas:
                await place.stop_by_id(replica_id)

        async with running(place, clean):
            yield place
    await connection.close()


@pytest.fixture(params=["processes", pytest.param("containers", marks=pytest.mark.docker)])
def place(request: pytest.FixtureRequest) -> Place:
    """Each of the two."""
    return request.getfixturevalue(request.param)
