"""The way to a real Docker engine: what is said when there is none, and that it is found again."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import docker
import docker.errors
import pytest
from tests.engine_proxy import EngineProxy

from servery_common.docker_engine import CUT_OFF, Engine, EngineAway, EngineFailed

pytestmark = pytest.mark.docker
IMAGE = "python:3.11-slim-bookworm"

# Becomes nobody, and asks the engine each time a line comes.
ASKS = """
import asyncio, encodings.idna, os, pwd, sys
from servery_common.docker_engine import Engine, EngineAway
os.setgroups([])
os.setresgid(*[pwd.getpwnam("nobody").pw_gid] * 3)
os.setresuid(*[pwd.getpwnam("nobody").pw_uid] * 3)
engine = Engine("builder")
for _ in sys.stdin:
    try:
        said = asyncio.run(engine.call(lambda client: client.ping()))
    except EngineAway as error:
        said = error.message
    print(said, flush=True)
"""


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EngineProxy]:
    """A socket in front of the engine's."""
    try:
        docker.from_env().ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"no Docker engine: {error}")
    with tempfile.TemporaryDirectory(prefix="engine-") as directory:
        proxy = EngineProxy(Path(directory))
        monkeypatch.setenv("DOCKER_HOST", proxy.url)
        yield proxy
        await proxy.close()


async def why(engine: Engine) -> str:
    with pytest.raises(EngineAway) as away:
        await engine.call(lambda client: client.ping())
    return away.value.message


async def test_an_engine_is_found_again_whatever_was_wrong(proxy: EngineProxy) -> None:
    engine = Engine("builder")
    assert await why(engine) == (
        "There is no Docker socket: mount the engine's socket into the builder, or set DOCKER_HOST."
    )
    await proxy.open()
    assert await engine.call(lambda client: client.ping())
    await proxy.close()
    # What was open breaks off, what is new is refused.
    assert await why(engine) in (CUT_OFF, "The Docker engine does not answer: start it.")
    assert await why(engine) == "The Docker engine does not answer: start it."
    await proxy.open()
    assert await engine.call(lambda client: client.ping())


async def test_what_the_engine_refuses_and_what_it_fails_at_are_not_its_absence(proxy: EngineProxy) -> None:
    await proxy.open()
    engine = Engine("builder")
    assert await engine.image_id("servery-there-is-no-such-image:0") is None
    with pytest.raises(docker.errors.NotFound):
        await engine.call(lambda client: client.containers.get("servery-there-is-no-such-container"))
    # Its words have "no such file or directory" in them, and are not about a socket.
    with pytest.raises(EngineFailed, match=r"The Docker engine failed: .*no such file or directory"):
        await engine.call(_mount_nothing)


def _mount_nothing(client: docker.DockerClient) -> None:
    options = {"type": "none", "o": "bind", "device": "/there/is/no/such/folder"}
    volume = client.volumes.create(driver="local", driver_opts=options)
    container = client.containers.create(IMAGE, ["true"], volumes={volume.name: {"bind": "/x"}})
    try:
        container.start()
    finally:
        container.remove(force=True)
        volume.remove()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
async def test_a_socket_without_rights_is_told_and_used_once_there_are_some(proxy: EngineProxy) -> None:
    await proxy.open()
    proxy.path.parent.chmod(0o755)
    proxy.path.chmod(0)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ASKS, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None

    async def ask() -> str:
        process.stdin.write(b"\n")
        return (await process.stdout.readline()).decode().strip()

    try:
        assert await ask() == (
            "The builder may not use the Docker socket: run it in the group that owns the socket."
        )
        proxy.path.chmod(0o666)
        assert await ask() == "True"
    finally:
        process.stdin.close()
        await process.wait()
