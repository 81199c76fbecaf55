"""A real Servery of its own: what ``servery up --detach`` starts, seen from outside.

Tests reach into it only as an operator could: HTTP, the ``servery`` command, the files of the data
directory and signals to its processes.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psutil
from tests.end_to_end.deadlines import eventually
from tests.infrastructure import free_port

SERVICES = ("gateway", "controller", "builder", "scaler", "worker")

PLENTY_QPS = 100_000
"""Tests and benchmarks that are not about the quota never meet it."""

_OURS = ("SERVERY_", "MLFLOW_", "DATABRICKS_", "OTEL_")
"""Variables of the caller that would change what is tested."""


@dataclass(frozen=True)
class Access:
    """What a client needs to know."""

    host: str
    token: str
    tracking_uri: str


running: list[Stack] = []
"""The stacks that tests may be using now, for failure reports."""


class Stack:
    """One embedded stack in ``directory`` (a short path: it holds unix sockets), its gateway on ``port``."""

    def __init__(self, directory: Path, port: int, variables: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.port = port
        self._variables = dict(variables or {})

    def up(self) -> None:
        """Start it, or start it again, and return when it says that it is ready."""
        answer = self.command("up", "--port", str(self.port), "--detach", timeout=240)
        assert answer.returncode == 0, f"`servery up` failed\n{answer.stdout}\n{self.log_tails()}"

    def raise_quota(self, qps: int) -> None:
        """Let the first workspace send so many scoring requests a second, as its operator would."""
        answer = httpx.put(
            f"{self.access.host}/api/2.0/servery/workspaces/1/quota",
            headers={"Authorization": f"Bearer {self.access.token}"},
            json={"qps": qps},
            timeout=30,
        )
        assert answer.status_code == 200, answer.text

    def down(self) -> None:
        """Stop it; no process of it may be left."""
        before = self.processes()
        answer = self.command("down", timeout=90)
        assert answer.returncode == 0, f"`servery down` failed\n{answer.stdout}\n{self.log_tails()}"
        left = {*_still_alive(before, within=5), *self.processes()}
        described = [f"{process.pid} {_command_line(process)}" for process in left]
        for process in left:
            _kill(process)
        assert not described, f"`servery down` left processes behind: {described}"

    def command(self, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
        """Run ``servery <arguments> --data-dir …`` as a person would."""
        servery = Path(sys.executable).with_name("servery")
        verb, *rest = arguments
        # Through a file: a detached stack that kept a pipe open would look like a command that hangs.
        output = self.directory.with_name(f"{self.directory.name}.{verb}.out")
        with output.open("w") as file:
            ended = subprocess.run(
                [str(servery), verb, "--data-dir", str(self.directory), *rest],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            )
        return subprocess.CompletedProcess(ended.args, ended.returncode, output.read_text())

    @cached_property
    def access(self) -> Access:
        """Address and credentials, as ``servery env`` prints them for a shell."""
        answer = self.command("env", timeout=30)
        assert answer.returncode == 0, answer.stdout
        words = shlex.split(answer.stdout, comments=True)
        variables = dict(word.split("=", 1) for word in words if "=" in word)
        return Access(
            host=variables["DATABRICKS_HOST"],
            token=variables["DATABRICKS_TOKEN"],
            tracking_uri=variables["MLFLOW_TRACKING_URI"],
        )

    def status(self) -> dict[str, Any]:
        """What ``servery status --json`` says."""
        return json.loads(self.command("status", "--json", timeout=30).stdout)

    def component(self, name: str) -> dict[str, Any]:
        """The entry of one component in the status."""
        components = {entry["name"]: entry for entry in self.status()["components"]}
        return components[name]

    def assert_nothing_crashed(self) -> None:
        """No component was restarted since the stack started, and no task of a service died."""
        restarted = [each["name"] for each in self.status()["components"] if each["restarts"]]
        died = [line for name in SERVICES for line in self.logs(name) if '"level": "critical"' in line]
        assert not restarted, f"restarted: {restarted}\n{self.log_tails()}"
        assert not died, "\n".join(died)

    def kill(self, name: str) -> int:
        """``kill -9`` one component and return the pid it had."""
        pid = self.component(name)["pid"]
        assert pid, f"{name} does not run\n{self.log_tails()}"
        os.kill(pid, signal.SIGKILL)
        return pid

    def await_recovery(self, name: str, old_pid: int, *, within: float = 60) -> None:
        """Wait until ``name`` runs as another process and the whole stack is ready."""

        def recovered() -> bool:
            status = self.status()
            entry = next(entry for entry in status["components"] if entry["name"] == name)
            assert status["ready"], status
            assert entry["pid"] != old_pid, status
            return True

        eventually(recovered, within=within, what=f"{name} is back", interval=0.5)

    def kill_supervisor(self) -> None:
        """``kill -9`` the supervisor and wait until everything it ran is gone with it."""
        before = self.processes()
        os.kill(self.status()["supervisor_pid"], signal.SIGKILL)
        alive = _still_alive(before, within=30)
        lines = [f"{process.pid} {_command_line(process)}" for process in alive]
        assert not alive, f"outlived the supervisor: {lines}\n{self.log_tails()}"

    def processes(self) -> list[psutil.Process]:
        """Every process that works in this data directory, by its command line or its environment."""
        mine = str(self.directory)
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            try:
                named = any(mine in word for word in process.cmdline())
                told = any(mine in value for value in process.environ().values())
            except psutil.Error:
                continue
            if (named or told) and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def logs(self, name: str) -> list[str]:
        """The log lines of one component."""
        path = self.directory / "logs" / f"{name}.log"
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    def report(self) -> list[tuple[str, str]]:
        """Titled texts for the report of a failed test."""
        return [
            (f"{self.directory}: state of the components", self._state_text()),
            (f"{self.directory}: end of the logs", self.log_tails()),
        ]

    def log_tails(self, count: int = 25) -> str:
        """The last lines of each service, for failure messages."""
        names = ("supervisor", *SERVICES)
        return "\n".join(f"--- {name}\n" + "\n".join(self.logs(name)[-count:]) for name in names)

    def _state_text(self) -> str:
        state = self.directory / "state.json"
        components = json.loads(state.read_text())["components"] if state.exists() else []
        return ", ".join(
            f"{each['name']} {each['state']} ({each['restarts']} restarts)" for each in components
        )

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        return {**kept, **self._variables}


def run_stack(variables: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """Start a stack in a new, short directory; stop it and remove the directory afterwards."""
    root = Path(tempfile.mkdtemp(prefix="sv-"))
    root.chmod(0o711)  # as root, the database runs as a user of its own and must be able to pass through
    stack = Stack(root / "d", free_port(), variables)
    stack.directory.mkdir(mode=0o711)
    # As if it had run before. By default each MLflow wants the same port: two stacks that start side by side both find
    # it free, and the one that is late takes the other's MLflow for its own.
    (stack.directory / "ports.json").write_text(json.dumps({"mlflow": free_port()}))
    try:
        stack.up()
        running.append(stack)
        stack.raise_quota(PLENTY_QPS)
        yield stack
    finally:
        if stack in running:
            running.remove(stack)
        try:
            stack.down()
        finally:
            shutil.rmtree(root, ignore_errors=True)


def _still_alive(processes: Iterable[psutil.Process], *, within: float) -> list[psutil.Process]:
    """Wait for all of them to end and return those that do not. A zombie has ended: only its status is left."""
    deadline = time.monotonic() + within
    alive = list(processes)
    while alive and time.monotonic() < deadline:
        time.sleep(0.05)
        alive = [process for process in alive if _runs(process)]
    return alive


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:200]
    except psutil.Error:
        return "?"


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.Error):
        process.kill()
