"""A real stack around stand-ins for the five services.

Postgres, NATS, MLflow and the supervisor are the real ones. The services are programs of a few lines
put before the real ones on PYTHONPATH: they say that they are ready, hold what a service would hold
(the gateway's port, the worker's grandchild) and end on SIGTERM. Where a test needs no MLflow, a server
that only says that it is there stands in for an external one.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from servery_local.postgres_place import SHARED
from servery_local.processes import STACK_VARIABLE

SERVICES = ("gateway", "controller", "builder", "scaler", "worker")
DEADLINE = 60.0

T = TypeVar("T")

STAND_IN = """
import os, signal, socket, subprocess, sys, threading

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if __package__ == "servery_gateway":
    address = os.environ["SERVERY_GATEWAY_HOST"], int(os.environ["SERVERY_GATEWAY_PORT"])
    server = socket.create_server(address)

    def hang_up():
        while True:
            server.accept()[0].close()

    threading.Thread(target=hang_up, daemon=True).start()
if __package__ == "servery_worker":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
print("hello from", __package__, flush=True)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
while True:
    signal.pause()
"""


class StandInMlflow(ThreadingHTTPServer):
    """Answers 200 to every GET."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), AnswerOk)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class AnswerOk(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


def eventually(read: Callable[[], T], what: str, deadline: float = DEADLINE) -> T:
    """Return the first true value of `read`; fail with `what` if none comes in time."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        value = read()
        if value:
            return value
        time.sleep(0.05)
    pytest.fail(f"not within {deadline:.0f} s: {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Stack:
    """One data directory, and the `servery` command pointed at it."""

    home: Path
    port: int = field(default_factory=free_port)
    external_mlflow: str | None = None
    """Most tests need no MLflow, and it takes longer to start than everything else together."""

    @property
    def data_dir(self) -> Path:
        return self.home / "data"

    @property
    def environment(self) -> dict[str, str]:
        kept = {"PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV"}
        env = {name: value for name, value in os.environ.items() if name in kept}
        env |= {
            "PYTHONPATH": str(self.home / "stand_ins"),
            "SERVERY_DATA_DIR": str(self.data_dir),
            "SERVERY_GATEWAY_PORT": str(self.port),
        }
        if self.external_mlflow:
            env["MLFLOW_TRACKING_URI"] = self.external_mlflow
        return env

    def write_stand_in(self, service: str, program: str = STAND_IN) -> None:
        package = self.home / "stand_ins" / f"servery_{service}"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(program)

    def servery(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a `servery` command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "servery_local", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=2 * DEADLINE,
            check=False,
        )

    def up(self) -> str:
        """Start the stack in the background and wait until it is ready; returns what was printed."""
        result = self.servery("up", "--detach")
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def status(self) -> dict:
        return json.loads(self.servery("status", "--json").stdout)

    def state(self) -> dict:
        """What the supervisor wrote about itself."""
        return json.loads((self.data_dir / "state.json").read_text())

    def component(self, name: str) -> dict:
        return next(each for each in self.status()["components"] if each["name"] == name)

    def processes(self) -> list[psutil.Process]:
        """All processes of the stack: the supervisor, its children and what these started.

        To look at, never to signal: who searches may find too much.
        """
        secrets = self.data_dir / "secrets.json"
        if not secrets.exists():
            return []
        stack_id = json.loads(secrets.read_text())["stack_id"]
        assert stack_id
        return [each for each in psutil.process_iter() if self._owns(each, stack_id)]

    def _owns(self, process: psutil.Process, stack_id: str) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            # Postgres writes its title over its environment, but works in its data directory.
            inside = str(self.data_dir) in (process.cwd(), *process.cmdline())
            inside = inside or process.cwd().startswith((f"{self.data_dir}/", f"{SHARED}/{stack_id}/"))
            return inside or process.environ().get(STACK_VARIABLE) == stack_id
        except psutil.Error:
            return False

    def ports(self) -> list[int]:
        kept = json.loads((self.data_dir / "ports.json").read_text())
        return [self.port, kept["nats"]]

    def kill_supervisor(self) -> None:
        os.kill(self.status()["supervisor_pid"], signal.SIGKILL)
