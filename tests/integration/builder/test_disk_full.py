"""A disk that fills up during a build: said clearly, nothing half-made stays, and it works once there is room."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.builder.peers import FakeWorker, Orderer, Registry, running_builder

from servery_builder.settings import BuilderSettings
from servery_common.contracts.builds import FailureCode
from servery_common.contracts.states import BuildState
from servery_common.postgres import Pool

pytestmark = pytest.mark.usefixtures("worker")
MIB = 1024**2


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four megabytes."""
    path = tmp_path / "disk"
    path.mkdir()
    if _mount("-t", "tmpfs", "-o", "size=4m", "servery-test", str(path)):
        pytest.skip("a file system cannot be mounted here: needs root")
    yield path
    subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def settings(settings: BuilderSettings, disk: Path) -> BuilderSettings:
    return settings.model_copy(update={"artifacts_dir": disk})


def make_room(disk: Path) -> None:
    assert _mount("-o", "remount,size=200m", str(disk)) == 0


def left(disk: Path) -> list[str]:
    """What there is of models and environments."""
    return [
        str(path.relative_to(disk))
        for folder in ("models", "environments")
        for path in (disk / folder).iterdir()
        if path.name != ".locks"
    ]


async def test_a_model_that_does_not_fit(
    nats_url: str, settings: BuilderSettings, pool: Pool, registry: Registry, orderer: Orderer, disk: Path
) -> None:
    model = registry.register([], extra={"weights": "x" * 8 * MIB})
    async with running_builder(nats_url, settings, pool):
        build_id = await orderer.order(model)
        status = await orderer.ended(build_id)
        assert (status.state, status.code) == (BuildState.FAILED, FailureCode.INTERNAL_ERROR)
        assert "A disk of the builder is full" in status.reason
        assert "free some space on it, then deploy again" in status.reason
        assert status.reason in await orderer.log(build_id)
        assert left(disk) == []

        make_room(disk)
        status = await orderer.ended(await orderer.order(model))
        assert status.state is BuildState.SUCCEEDED, status.reason


async def test_packages_that_do_not_fit(
    nats_url: str,
    settings: BuilderSettings,
    pool: Pool,
    registry: Registry,
    orderer: Orderer,
    disk: Path,
    worker: FakeWorker,
) -> None:
    model = registry.register(["six==1.16.0", "pygments"])  # more than four megabytes
    async with running_builder(nats_url, settings, pool):
        build_id = await orderer.order(model)
        status = await orderer.ended(build_id)
        assert (status.state, status.code) == (BuildState.FAILED, FailureCode.INSTALL_FAILED)
        assert "The disk filled up while the model's packages were installed" in status.reason
        assert [one.partition("/")[0] for one in left(disk)] == ["models"], "its files are whole"

        make_room(disk)
        status = await orderer.ended(await orderer.order(model))
        assert status.state is BuildState.SUCCEEDED, status.reason
    assert len(worker.requests) == 1


def _mount(*arguments: str) -> int:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode
