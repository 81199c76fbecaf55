"""Environments compiled in the background."""

import asyncio
import sys
from pathlib import Path

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
