"""One supervised child that cannot be started for a while."""

import asyncio
import sys
from pathlib import Path

import pytest
from rich.console import Console

from servery_local.child import Child, ChildSpec
from servery_local.errors import ComponentFailed
from servery_local.logs import LineLog, RotatingLog
from servery_local.reporter import Reporter
from servery_local.restarts import RestartPolicy

READY_AND_DIE = """
import os, socket
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
"""


def child(runtime: Path, changed=lambda: None) -> Child:
    log = RotatingLog(runtime / "log")
    return Child(
        spec=ChildSpec("x", (sys.executable, "-c", READY_AND_DIE), {}, runtime),
        runtime=runtime,
        output=LineLog("x", log, log),
        reporter=Reporter(Console(quiet=True)),
        changed=changed,
        policy=RestartPolicy(first_delay=0.01, longest_delay=0.01, attempts=3),
    )


async def test_a_child_that_cannot_be_started_again_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, attempts = asyncio.create_subprocess_exec, 0
    enough = asyncio.Event()

    async def fail_in_between(*args, **kwargs):
        nonlocal attempts
        attempts += 1
        if attempts in (2, 3):
            raise BlockingIOError(11, "Resource temporarily unavailable")
        if attempts == 4:
            enough.set()
        return await start(*args, **kwargs)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", fail_in_between)
    one = child(tmp_path)
    running = asyncio.create_task(one.run())
    await asyncio.wait_for(one.ready.wait(), 30)
    await asyncio.wait_for(enough.wait(), 30)
    assert not running.done()
    await one.stop()
    await running
    assert not (tmp_path / "x").exists(), "its notification socket is left"


async def test_a_child_that_never_could_be_started_is_given_up_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*args, **kwargs):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", fail)
    with pytest.raises(ComponentFailed, match=r"Resource temporarily unavailable\), 3 times in a row"):
        await child(tmp_path).run()
    assert not (tmp_path / "x").exists()
