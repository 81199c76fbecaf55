"""Compile the packages of new environments, when nothing else waits for it.

Starting a model imports hundreds of modules, and from source that takes two to three times as long. Compiling
everything takes several times longer than installing it, though, so a build does not wait: environments are
compiled one at a time after a build of theirs succeeded, at the lowest priority. Nothing depends on it, and an
environment whose compilation was interrupted is compiled when a build uses it the next time.
"""

import asyncio
import os
import time
from collections.abc import Callable

import structlog

from servery_builder.environments import compile_packages
from servery_builder.environments.uv import scrub
from servery_builder.environments.virtualenv import Environment

log = structlog.get_logger(__name__)

COMPILED = ".servery-compiled"


class BytecodeCompiler:
    """Compiles environments in the background."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Environment] = asyncio.Queue()

    def request(self, environment: Environment) -> None:
        """Compile an environment later, unless it is compiled."""
        if not _is_compiled(environment):
            self._queue.put_nowait(environment)

    async def compile_now(self, environment: Environment, say: Callable[[str], None]) -> None:
        """Compile an environment that is about to be copied to where nobody can write."""
        if not _is_compiled(environment):
            say("Compiling the packages.")
            await _compile(environment, patient=False)

    async def run(self) -> None:
        """Compile what is requested, for ever."""
        while True:
            environment = await self._queue.get()
            if not _is_compiled(environment):
                try:
                    await _compile(environment, patient=True)
                except Exception as error:
                    # The environment may have been removed, the disk may be full. Nothing depends on bytecode.
                    log.warning("bytecode_not_compiled", environment_key=environment.key, error=repr(error))


def _is_compiled(environment: Environment) -> bool:
    return (environment.path / COMPILED).exists()


async def _compile(environment: Environment, *, patient: bool) -> None:
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(environment.python, "-I", "-S", compile_packages.__file__, environment.path / "lib"),
        *([str(os.getpid())] if patient else []),
        env=scrub(os.environ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise OSError(f"compiling the packages of {environment.path} ended with {process.returncode}")
    (environment.path / COMPILED).touch()
    seconds = round(time.monotonic() - started, 3)
    log.info("bytecode_compiled", environment_key=environment.key, seconds=seconds)
