"""MLflow's own scoring servers, to compare with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from tests.end_to_end.deadlines import eventually
from tests.infrastructure import free_port
from tests.models.bodies import Body


class ReferenceServers:
    """MLflow's scoring servers, one process and port per model."""

    def __init__(self, models: dict[str, Path], log: Path) -> None:
        self._models = models
        self._ports = {name: free_port() for name in models}
        self._log = log
        arguments = [f"{path}={self._ports[name]}" for name, path in models.items()]
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.models.reference_server", *arguments],
                cwd=Path(__file__).parents[2],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # A new connection for each request: after a 500 the server closes the one it has.
        self._http = httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0))

    def await_ready(self) -> None:
        """Wait until all of them answer."""
        await_ping(self._http, self._ports, self._process, self._log)

    def score(self, name: str, body: Body) -> httpx.Response:
        """POST a body to a model."""
        return post(self._http, self._ports[name], body)

    @contextmanager
    def by_command(self, name: str) -> Iterator[Callable[[Body], httpx.Response]]:
        """Serve a model with the real command while the context is open; yields a function that scores."""
        mlflow = Path(sys.executable).with_name("mlflow")
        port = free_port()
        arguments = [
            "models",
            "serve",
            "-m",
            str(self._models[name]),
            "-p",
            str(port),
            "--env-manager",
            "local",
        ]
        # The command finds uvicorn by its name.
        path = f"{mlflow.parent}{os.pathsep}{os.environ['PATH']}"
        with self._log.open("a") as output:
            process = subprocess.Popen(
                [str(mlflow), *arguments],
                env={**os.environ, "PATH": path},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            await_ping(self._http, {name: port}, process, self._log)
            yield lambda body: post(self._http, port, body)
        finally:
            end_group(process)

    def close(self) -> None:
        """End all of them."""
        self._http.close()
        end_group(self._process)


def await_ping(
    http: httpx.Client, ports: dict[str, int], process: subprocess.Popen[bytes], log: Path
) -> None:
    """Wait until the servers on ``ports``, all of one process group, answer."""

    def all_answer() -> bool:
        assert process.poll() is None, "the reference server ended"
        for name, port in ports.items():
            try:
                http.get(f"http://127.0.0.1:{port}/ping")
            except httpx.TransportError as error:
                raise AssertionError(f"{name}: {error!r}") from error
        return True

    eventually(all_answer, within=120, what="reference servers answer", explain=log.read_text)


def post(http: httpx.Client, port: int, body: Body) -> httpx.Response:
    """POST a body to a scoring server."""
    headers = {"Content-Type": body.content_type} if body.content_type else {}
    return http.post(f"http://127.0.0.1:{port}/invocations", content=body.content, headers=headers)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all it started."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
