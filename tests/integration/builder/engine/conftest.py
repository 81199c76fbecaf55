"""A builder that makes images, on a real engine that the test may take away; the worker in them is a stand-in."""

import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import docker
import docker.errors
import pytest
from tests.engine_proxy import EngineProxy

from servery_builder.settings import BuilderSettings

STAND_IN = Path(__file__).with_name("stand_in_worker.py")
DOCKERFILE = """
FROM python:3.11-slim-bookworm
COPY stand_in_worker.py /opt/stand-in/servery_worker/verification.py
ENV PYTHONPATH=/opt/stand-in
"""


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
def worker_image(engine: docker.DockerClient) -> Iterator[str]:
    """The name of an image that verifies models as they ask for it."""
    name = f"servery-test-worker:{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory() as context:
        shutil.copy(STAND_IN, context)
        Path(context, "Dockerfile").write_text(DOCKERFILE)
        command = ["docker", "buildx", "build", "--quiet", "--load", "--tag", name, context]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    yield name
    engine.images.remove(name)


@pytest.fixture
def installation(engine: docker.DockerClient) -> Iterator[str]:
    """Label of everything the builder makes; all of it is gone afterwards."""
    name = f"builder-{uuid.uuid4().hex[:8]}"
    yield name
    ours = {"label": f"servery.installation={name}"}
    for container in engine.containers.list(all=True, filters=ours):
        container.remove(force=True, v=True)
    # What is made on others first.
    for image in sorted(engine.images.list(filters=ours), key=lambda i: -len(i.attrs["RootFS"]["Layers"])):
        engine.images.remove(image.id, force=True)


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch, engine: docker.DockerClient) -> AsyncIterator[EngineProxy]:
    """The builder's way to the engine, which is not open yet."""
    with tempfile.TemporaryDirectory(prefix="engine-") as directory:
        proxy = EngineProxy(Path(directory))
        monkeypatch.setenv("DOCKER_HOST", proxy.url)
        yield proxy
        await proxy.close()


@pytest.fixture
def settings(settings: BuilderSettings, worker_image: str, installation: str) -> Iterator[BuilderSettings]:
    # Not below /tmp, which is empty in the containers that models are verified in.
    with tempfile.TemporaryDirectory(prefix="artifacts-", dir="/var/tmp") as artifacts:
        yield settings.model_copy(
            update={
                "artifacts_dir": Path(artifacts),
                "images": "docker",
                "image_base": worker_image,
                "image_installation": installation,
            }
        )
