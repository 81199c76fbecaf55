"""Environments compiled in the background."""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import psutil
import pytest

from servery_builder.environments import compile_packages
from servery_builder.environments.bytecode import COMPILED, BytecodeCompiler
from servery_builder.environments.virtualenv import Environment


async def test_an_environment_that_is_gone_does_not_keep_the_next_from_being_compiled(tmp_path: Path) -> None:
    gone = Environment("gone", tmp_path / "gone", Path(sys.executable), cached=False)
    there = Environment("there", tmp_path / "there", Path(sys.executable), cached=False)
    (there.path / "lib").mkdir(parents=True)
    (there.path / "lib" / "module.py").write_text("x = 1")
    compiler = BytecodeCompiler()
    compiler.request(gone)
    compiler.request(there)
    running = asyncio.create_task(compiler.run())
    try:
        async with asyncio.timeout(60):
            while not (there.path / COMPILED).exists():
                assert not running.done(), running.exception()
                await asyncio.sleep(0.02)
    finally:
        running.cancel()
    assert list((there.path / "lib" / "__pycache__").glob("module.*.pyc"))
    assert not gone.path.exists()


MODULES = 500


def many_modules(directory: Path) -> None:
    """Seconds of work."""
    directory.mkdir(parents=True)
    text = "\n".join(f"def f{number}(x):\n    return [x, {number}]" for number in range(2000))
    for number in range(MODULES):
        (directory / f"module{number}.py").write_text(text)


async def patient_compiler_of(parent: int) -> psutil.Process:
    """The process that compiles for this one, once it has stepped back."""
    async with asyncio.timeout(30):
        while True:
            for child in psutil.Process(parent).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if compile_packages.__file__ in child.cmdline() and child.nice() == 19:
                        return child
            await asyncio.sleep(0.02)


async def test_compiling_in_the_background_takes_only_what_nobody_else_wants(tmp_path: Path) -> None:
    environment = Environment("busy", tmp_path / "busy", Path(sys.executable), cached=False)
    many_modules(environment.path / "lib")
    compiler = BytecodeCompiler()
    compiler.request(environment)
    running = asyncio.create_task(compiler.run())
    try:
        process = await patient_compiler_of(os.getpid())
        assert os.getsid(process.pid) == process.pid
        group = Path(f"/proc/{process.pid}/autogroup")
        if group.exists() and group.read_text().strip():
            assert group.read_text().split()[-1] == "19"
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert not process.is_running()


STARTS_ONE = """
import asyncio, sys
from pathlib import Path
from servery_builder.environments.bytecode import BytecodeCompiler
from servery_builder.environments.virtualenv import Environment

compiler = BytecodeCompiler()
compiler.request(Environment("busy", Path(sys.argv[1]), Path(sys.executable), cached=False))
asyncio.run(compiler.run())
"""


async def test_it_ends_with_a_builder_that_is_killed(tmp_path: Path) -> None:
    many_modules(tmp_path / "busy" / "lib")
    builder = await asyncio.create_subprocess_exec(sys.executable, "-c", STARTS_ONE, str(tmp_path / "busy"))
    process = await patient_compiler_of(builder.pid)
    builder.kill()
    await builder.wait()
    await asyncio.to_thread(process.wait, 5)
    assert len(list((tmp_path / "busy" / "lib" / "__pycache__").glob("*.pyc"))) < MODULES


async def test_an_interpreter_that_fails_has_compiled_nothing(tmp_path: Path) -> None:
    environment = Environment("broken", tmp_path / "broken", Path("/bin/false"), cached=False)
    (environment.path / "lib").mkdir(parents=True)
    with pytest.raises(OSError, match="ended with 1"):
        await BytecodeCompiler().compile_now(environment, lambda _line: None)
    assert not (environment.path / COMPILED).exists()
