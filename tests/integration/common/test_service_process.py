"""A service as a process: signals, exit codes, readiness."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def service(body: str, directory: Path) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    program = directory / "program.py"
    program.write_text(
        "import asyncio\nfrom servery_common.service import run\n"
        f"async def main(context):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
        "run('test', main)\n"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        address = str(directory / "notify")
        supervisor.bind(address)
        supervisor.settimeout(20)
        process = subprocess.Popen(
            [sys.executable, str(program)],
            env={**os.environ, "NOTIFY_SOCKET": address},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield process, supervisor
        finally:
            process.kill()
            process.wait()


def events(output: str) -> dict[str, dict[str, Any]]:
    return {line["event"]: line for line in map(json.loads, output.splitlines())}


def test_sigterm_ends_a_service_in_order(tmp_path: Path) -> None:
    body = """
        context.ready()
        await context.stopping.wait()
        print('{"event": "taken_apart"}', flush=True)
    """
    with service(body, tmp_path) as (process, supervisor):
        assert supervisor.recv(64) == b"READY=1"
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=20)
        assert supervisor.recv(64) == b"STOPPING=1"
    assert process.returncode == 0
    assert {"service_ready", "stop_requested", "taken_apart", "service_stopped"} <= set(events(output))


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    body = """
        context.ready()
        await asyncio.sleep(3600)
    """
    with service(body, tmp_path) as (process, supervisor):
        assert supervisor.recv(64) == b"READY=1"
        process.send_signal(signal.SIGTERM)
        assert supervisor.recv(64) == b"STOPPING=1"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 128 + signal.SIGTERM


def test_a_dead_task_ends_the_service_and_is_named(tmp_path: Path) -> None:
    body = """
        async def doomed():
            raise RuntimeError("boom")
        context.spawn("doomed-task", doomed())
        await context.stopping.wait()
    """
    with service(body, tmp_path) as (process, _):
        output, _ = process.communicate(timeout=20)
    died = events(output)["task_died"]
    assert (process.returncode, died["task"]) == (1, "doomed-task")
    assert "boom" in died["exception"]


def test_a_main_that_fails_ends_the_service(tmp_path: Path) -> None:
    with service("raise RuntimeError('boom')", tmp_path) as (process, _):
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "boom" in events(output)["service_failed"]["exception"]


def test_a_service_that_waits_for_a_neighbour_ends_without_it(tmp_path: Path) -> None:
    body = """
        print('{"event": "waiting"}', flush=True)
        await asyncio.sleep(3600)
    """
    with service(body, tmp_path) as (process, _):
        assert process.stdout is not None
        while '"waiting"' not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 0
