"""A build while the Docker engine cannot be reached: it waits, says why, and goes on by itself."""

import asyncio
import secrets
from datetime import timedelta

import docker
import pytest
from tests.engine_proxy import EngineProxy
from tests.integration.builder.peers import Orderer, Registry, running_builder

from servery_builder.settings import BuilderSettings
from servery_common.contracts.builds import BuildStatus, FailureCode
from servery_common.contracts.states import BuildState
from servery_common.postgres import Pool

pytestmark = pytest.mark.docker


async def until_it_waits(orderer: Orderer, build_id: str, reason: str) -> None:
    await orderer.until_log_has(build_id, "Trying again")

    async def waits() -> bool:
        # Between two tries, which are not always far apart.
        return "waiting for the Docker engine" in (await orderer.describe(build_id)).step

    async with asyncio.timeout(60):
        while not await waits():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await orderer.until_log_has(build_id, reason)


def assert_made_once(engine: docker.DockerClient, status: BuildStatus, installation: str) -> None:
    assert status.state is BuildState.SUCCEEDED, status.reason
    assert status.artifacts is not None
    image = engine.images.get(f"servery/model:{status.build_id}")
    assert image.id == status.artifacts.image
    ours = {"label": [f"servery.installation={installation}"]}
    assert engine.containers.list(all=True, filters=ours) == [], "nothing that verified it is left"


async def test_without_a_socket_a_build_says_so_and_goes_on_once_it_is_mounted(
    nats_url: str,
    settings: BuilderSettings,
    pool: Pool,
    registry: Registry,
    orderer: Orderer,
    proxy: EngineProxy,
    engine: docker.DockerClient,
    installation: str,
) -> None:
    async with running_builder(nats_url, settings, pool):
        build_id = await orderer.order(registry.register([]))
        await until_it_waits(orderer, build_id, "There is no Docker socket: mount")
        await proxy.open()
        assert_made_once(engine, await orderer.ended(build_id), installation)


async def test_an_engine_that_goes_away_while_an_image_is_made_is_waited_for(
    nats_url: str,
    settings: BuilderSettings,
    pool: Pool,
    registry: Registry,
    orderer: Orderer,
    proxy: EngineProxy,
    engine: docker.DockerClient,
    installation: str,
) -> None:
    await proxy.open()
    # In the middle of what BuildKit's client sends: the model's files.
    proxy.cut(b"/session", after_bytes=2_000_000)
    async with running_builder(nats_url, settings, pool):
        build_id = await orderer.order(registry.register([], extra={"weights": secrets.token_hex(4_000_000)}))
        await proxy.was_cut.wait()
        await until_it_waits(orderer, build_id, "The Docker engine does not answer: start it.")
        await proxy.open()
        assert_made_once(engine, await orderer.ended(build_id), installation)
        assert "== image failed" not in await orderer.log(build_id)


async def test_an_engine_that_goes_away_while_a_model_is_verified_is_waited_for(
    nats_url: str,
    settings: BuilderSettings,
    pool: Pool,
    registry: Registry,
    orderer: Orderer,
    proxy: EngineProxy,
    engine: docker.DockerClient,
    installation: str,
) -> None:
    await proxy.open()
    async with running_builder(nats_url, settings, pool):
        build_id = await orderer.order(registry.register([], extra={"do": "linger 4"}))
        await orderer.until_log_has(build_id, "verifying, ")
        await proxy.close()
        await until_it_waits(orderer, build_id, "The Docker engine does not answer: start it.")
        await proxy.open()
        assert_made_once(engine, await orderer.ended(build_id), installation)


async def test_an_engine_that_stays_away_fails_the_build_with_what_to_do(
    nats_url: str,
    settings: BuilderSettings,
    pool: Pool,
    registry: Registry,
    orderer: Orderer,
    proxy: EngineProxy,
) -> None:
    impatient = settings.model_copy(update={"engine_patience": timedelta(seconds=0.5)})
    async with running_builder(nats_url, impatient, pool):
        status = await orderer.ended(await orderer.order(registry.register([])))
    assert (status.state, status.code) == (BuildState.FAILED, FailureCode.IMAGE_FAILED)
    assert status.reason == (
        "There is no Docker socket: mount the engine's socket into the builder, or set DOCKER_HOST, then deploy again."
    )
