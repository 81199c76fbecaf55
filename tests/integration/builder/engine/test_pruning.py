"""Images beyond the limit are removed from a real engine: the oldest that nobody needs, never one that is in use."""

import secrets
import subprocess
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import docker
import docker.errors
import pytest

from servery_builder.images.layers import Layer
from servery_builder.images.pruning import YOUNG, ImagePruner
from servery_common.contracts import subjects
from servery_common.contracts.builds import BuildsInUse, ReadBuildsInUse
from servery_common.docker_engine import Engine
from servery_common.messaging.testing import InMemoryBus

pytestmark = pytest.mark.docker
MB = 10**6

Make = Callable[[str, str], str]


@pytest.fixture
def make(engine: docker.DockerClient, installation: str) -> Make:
    """Make an image of one megabyte more than the one it is made on; return its content id."""

    def make(name: str, base: str) -> str:
        kind, _, tag = name.partition(":")
        labels = {"servery.installation": installation}
        if kind.endswith("model"):
            labels["servery.build"] = tag
        with tempfile.TemporaryDirectory() as context:
            Path(context, "content").write_bytes(secrets.token_bytes(MB))
            Path(context, "Dockerfile").write_text(Layer(name, base, "/content", labels).dockerfile())
            command = ["docker", "buildx", "build", "--quiet", "--load", "--tag", name, context]
            subprocess.run(command, check=True, capture_output=True, timeout=120)
        return str(engine.images.get(name).id)

    return make


@pytest.fixture
def needed() -> set[str]:
    """The builds that endpoints need."""
    return set()


@pytest.fixture
async def bus(needed: set[str]) -> InMemoryBus:
    bus = InMemoryBus()

    async def in_use(_: ReadBuildsInUse) -> BuildsInUse:
        return BuildsInUse(build_ids=tuple(needed))

    await bus.serve(subjects.controller_builds_in_use(), ReadBuildsInUse, in_use)
    return bus


async def test_the_oldest_that_nobody_needs_go_and_what_is_used_stays(
    engine: docker.DockerClient, installation: str, make: Make, needed: set[str], bus: InMemoryBus
) -> None:
    own = installation
    environment = make(f"{own}/environment:e1", "scratch")
    models = {name: make(f"{own}/model:{name}", f"{own}/environment:e1") for name in ("b1", "b2", "b3", "b4")}
    unused = make(f"{own}/environment:e2", "scratch")
    needed.add("b1")
    # A container keeps its image, whatever the controller says.
    container = engine.containers.create(
        models["b2"], ["nothing"], labels={"servery.installation": installation}
    )
    later = datetime.now(UTC) + YOUNG + timedelta(minutes=1)

    async def prune(megabytes: float, now: datetime) -> list[str]:
        pruner = ImagePruner(Engine("builder"), bus, installation, int(megabytes * MB), 10**15, 600)
        return await pruner.prune(now)

    # Six images, six megabytes: what they share counts once.
    assert await prune(6.5, later) == []
    assert await prune(0, datetime.now(UTC)) == [], "those just made stay"
    assert await prune(4.5, later) == [models["b3"]]
    assert await prune(0, later) == [models["b4"], unused]
    for kept in (environment, models["b1"], models["b2"]):
        assert engine.images.get(kept)
    container.remove()
    needed.clear()
    assert await prune(0, later) == [models["b1"], models["b2"], environment]
    for gone in (environment, unused, *models.values()):
        with pytest.raises(docker.errors.ImageNotFound):
            engine.images.get(gone)
    assert engine.images.list(filters={"label": f"servery.installation={own}"}) == []


async def test_the_engine_takes_how_much_buildkit_may_keep(
    engine: docker.DockerClient, installation: str, make: Make, bus: InMemoryBus
) -> None:
    """It is asked to keep more than there is: others build on it, too."""
    make(f"{installation}/environment:e1", "scratch")
    pruner = ImagePruner(Engine("builder"), bus, installation, 10**15, 10**15, 600)
    assert await pruner.prune_cache() == 0
    engine.images.remove(f"{installation}/environment:e1")
