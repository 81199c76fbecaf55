"""A builder that dies or stops loses no build."""

import asyncio

from tests.integration.builder.peers import (
    FakeWorker,
    Orderer,
    Registry,
    running_builder,
    start_builder_process,
)

from servery_builder.settings import BuilderSettings
from servery_common.contracts.states import BuildState
from servery_common.postgres import Pool

# A package of the model's own that takes its time to build, once.
_SLOW_BACKEND = """
import pathlib, time, zipfile

WHEEL = "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    flag = pathlib.Path({flag!r})
    if not flag.exists():
        flag.touch()
        time.sleep(3)
    name = "slow-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / name, "w") as wheel:
        wheel.writestr("slow.py", "")
        wheel.writestr("slow-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: slow\\nVersion: 1.0\\n")
        wheel.writestr("slow-1.0.dist-info/WHEEL", WHEEL)
        wheel.writestr("slow-1.0.dist-info/RECORD", "slow.py,,\\n")
    return name
"""
_SLOW_PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "slow"
version = "1.0"
"""


async def test_a_build_whose_builder_was_killed_while_verifying_is_taken_over(
    registry: Registry,
    orderer: Orderer,
    worker: FakeWorker,
    settings: BuilderSettings,
    pool: Pool,
    nats_url: str,
    postgres_url: str,
) -> None:
    worker.hangs.set()
    process = start_builder_process(nats_url, postgres_url, settings)
    try:
        build_id = await orderer.order(registry.register(["six==1.16.0"]))
        await orderer.until_log_has(build_id, "== verify")
        async with asyncio.timeout(10):
            while not worker.requests:  # noqa: ASYNC110 - a list in this process
                await asyncio.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    worker.hangs.clear()

    async with running_builder(nats_url, settings, pool):
        status = await orderer.ended(build_id, seconds=30)
        log = await orderer.log(build_id)
    assert status.state is BuildState.SUCCEEDED
    assert "The builder that worked on this is gone: starting over (attempt 2)." in log
    assert "has these requirements already" in log


async def test_an_installer_that_outlives_its_killed_builder_is_waited_for(
    registry: Registry,
    orderer: Orderer,
    worker: FakeWorker,
    settings: BuilderSettings,
    pool: Pool,
    nats_url: str,
    postgres_url: str,
) -> None:
    flag = settings.artifacts_dir.parent / "building"
    slow = {"slow/pyproject.toml": _SLOW_PROJECT, "slow/backend.py": _SLOW_BACKEND.format(flag=str(flag))}
    process = start_builder_process(nats_url, postgres_url, settings)
    try:
        build_id = await orderer.order(registry.register(["./slow"], extra=slow))
        async with asyncio.timeout(30):
            while not flag.exists():  # noqa: ASYNC110 - a file of another process
                await asyncio.sleep(0.05)
    finally:
        process.kill()
        process.wait()

    async with running_builder(nats_url, settings, pool):
        status = await orderer.ended(build_id, seconds=30)
        log = await orderer.log(build_id)
    assert status.state is BuildState.SUCCEEDED
    assert "An unfinished environment of an interrupted build is removed." in log


async def test_a_builder_that_stops_gives_its_build_back_at_once(
    registry: Registry,
    orderer: Orderer,
    worker: FakeWorker,
    settings: BuilderSettings,
    pool: Pool,
    nats_url: str,
) -> None:
    worker.hangs.set()
    async with running_builder(nats_url, settings, pool):
        build_id = await orderer.order(registry.register(["six==1.16.0"]))
        await orderer.until_log_has(build_id, "== verify")
    row = await pool.fetchrow("SELECT state, attempts FROM builds WHERE build_id = $1", build_id)
    assert row is not None
    assert tuple(row) == ("QUEUED", 0)

    worker.hangs.clear()
    async with running_builder(nats_url, settings, pool):
        assert (await orderer.ended(build_id)).state is BuildState.SUCCEEDED
