"""Compile the packages of new environments, when nothing else waits for it.

Starting a model imports hundreds of modules, and from source that takes two to three times as long. Compiling
everything takes several times longer than installing it, though, so a build does not wait: environments are
compiled one at a time after a build of theirs succeeded, at the lowest priority. Nothing depends on it, and an
environment whose compilation was interrupted is compiled when a build uses it the next time.
"""

import asyncio
import os
import time

import structlog

from servery_builder.environments.uv import scrub
from servery_builder.environments.virtualenv import Environment

log = structlog.get_logger(__name__)

COMPILED = ".servery-compiled"
# A package's own tests are a third of its modules and never imported by a model.
_SKIPPED = r"[/\\]tests?[/\\]"
_LOWEST_PRIORITY = "19"


class BytecodeCompiler:
    """Compiles environments in the background."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Environment] = asyncio.Queue()

    def request(self, environment: Environment) -> None:
        """Compile an environment later, unless it is compiled."""
        if not _is_compiled(environment):
            self._queue.put_nowait(environment)

    async def run(self) -> None:
        """Compile what is requested, for ever."""
        while True:
            environment = await self._queue.get()
            if not _is_compiled(environment):
                try:
                    await _compile(environment)
                except Exception as error:
                    # The environment may have been removed, the disk may be full. Nothing depends on bytecode.
                    log.warning("bytecode_not_compiled", environment_key=environment.key, error=repr(error))


def _is_compiled(environment: Environment) -> bool:
    return (environment.path / COMPILED).exists()


async def _compile(environment: Environment) -> None:
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *("nice", "-n", _LOWEST_PRIORITY),
        # Isolated and without site: compiling runs no code of the packages, not even their .pth files.
        *(environment.python, "-I", "-S", "-m", "compileall", "-q", "-x", _SKIPPED, environment.path / "lib"),
        env=scrub(os.environ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        # Some packages carry templates that are no valid Python, so the exit code says nothing.
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    (environment.path / COMPILED).touch()
    seconds = round(time.monotonic() - started, 3)
    log.info("bytecode_compiled", environment_key=environment.key, seconds=seconds)
