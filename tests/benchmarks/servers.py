"""The servers that are measured, each as its users start it: Servery, ``mlflow models serve`` and MLServer."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
from tests.benchmarks.load.client import Target
from tests.end_to_end.client import Client
from tests.end_to_end.otlp_receiver import OtlpReceiver
from tests.end_to_end.stack import Stack, run_stack
from tests.infrastructure import free_port

CACHE = Path(".servery-bench")
"""Kept between runs, below the working directory: MLServer's environment."""
MLSERVER = ("mlserver==1.7.1", "mlserver-mlflow==1.7.1", "uvloop==0.21.0")
"""Its workers do not start with a newer uvloop."""
SAMPLED = "0.01"
START_SECONDS = 120
COLUMNS = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
ROW = [5.1, 3.5, 1.4, 0.2]
IRIS_BODY = json.dumps({"dataframe_split": {"columns": COLUMNS, "data": [ROW]}})
WAITING_BODY = json.dumps({"dataframe_split": {"columns": ["x"], "data": [[1.0]]}})
IRIS_ANSWER = '{"predictions": [0]}'
V2_BODY = json.dumps(
    {
        "id": "1",  # Otherwise each answer has one of its own, and no two are the same.
        "parameters": {"content_type": "pd"},
        "inputs": [
            {"name": name, "shape": [1, 1], "datatype": "FP64", "data": [value]}
            for name, value in zip(COLUMNS, ROW, strict=True)
        ],
    }
)


class Servery:
    """A stack of its own, traced at 1 %, with every check of the real path in place."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.client = Client(stack)
        self.url = stack.access.host

    def deploy(self, name: str, model: str, version: str = "1", **options: Any) -> None:
        """Deploy and wait until it serves, and until what a build leaves to do in the background is done."""
        self.client.deploy(name, model, version, **options)
        deadline = time.monotonic() + START_SECONDS
        quiet = 0
        while quiet < 2:  # There is a moment between two environments.
            quiet = 0 if any(_compiles(process) for process in self.stack.processes()) else quiet + 1
            if time.monotonic() > deadline:
                raise SystemExit(f"packages were still being compiled after {START_SECONDS} s")
            time.sleep(0.2)

    def target(
        self, endpoint: str, body: str | int = IRIS_BODY, expected: str | None = IRIS_ANSWER
    ) -> Target:
        """The endpoint as the load generator needs it."""
        return Target(
            "Servery",
            self.url,
            f"/serving-endpoints/{endpoint}/invocations",
            body,
            {"Authorization": f"Bearer {self.stack.access.token}"},
            expected,
        )

    def command(self, *arguments: str) -> str:
        """Run the ``servery`` command as the operator; return what it printed."""
        access = self.stack.access
        return subprocess.run(
            [str(Path(sys.executable).with_name("servery")), *arguments],
            env={**os.environ, "DATABRICKS_HOST": access.host, "DATABRICKS_TOKEN": access.token},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def other_workspace(self, endpoint: str, model: str) -> Target:
        """An endpoint in a workspace of its own, as another team has it."""
        made = json.loads(
            self.command("workspace", "create", "neighbours", "--admin", "eve@example.com", "--json")
        )
        headers = {"Authorization": f"Bearer {made['token_value']}"}
        client = Client(self.stack)
        client.http.headers.update(headers)
        client.deploy(endpoint, model, "1")
        return Target(
            "neighbour",
            self.url,
            f"/serving-endpoints/{endpoint}/invocations",
            IRIS_BODY,
            headers,
            IRIS_ANSWER,
        )

    def memory(self) -> dict[str, float]:
        """Resident memory of its processes in MiB, by what they do."""
        found: dict[str, float] = {}
        for process in self.stack.processes():
            with contextlib.suppress(Exception):
                line = " ".join(process.cmdline())
                for name, word in (
                    ("gateway", "servery_gateway"),
                    ("runner", "servery_runner"),
                    ("worker", "servery_worker"),
                    ("nats", "nats-server"),
                ):
                    if word in line:
                        megabytes = process.memory_info().rss / 2**20
                        found[name] = found.get(name, 0.0) + megabytes
                        break
        return found


def _compiles(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any("compile_packages" in word for word in process.cmdline())
    return False


@contextlib.contextmanager
def servery(**variables: str) -> Iterator[Servery]:
    """Start a stack; spans go to a receiver that stands in for a collector."""
    receiver = OtlpReceiver()
    tracing = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": SAMPLED,
    }
    try:
        with contextlib.contextmanager(run_stack)({**tracing, **variables}) as stack:
            os.environ["MLFLOW_TRACKING_URI"] = stack.access.tracking_uri
            yield Servery(stack)
    finally:
        receiver.close()


@contextlib.contextmanager
def mlflow_serve(model_path: Path) -> Iterator[Target]:
    """``mlflow models serve`` with one worker, its default."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model_path), "-p", str(port)]
    with _running([*command, "--env-manager", "local", "--host", "127.0.0.1"], os.environ):
        target = Target(
            "mlflow models serve", f"http://127.0.0.1:{port}", "/invocations", IRIS_BODY, {}, IRIS_ANSWER
        )
        _await_answer(f"{target.url}/ping")
        yield target


@contextlib.contextmanager
def mlserver(model_path: Path, directory: Path) -> Iterator[tuple[Target, Target]]:
    """MLServer with adaptive batching on: its MLflow route, and its V2 route, which is the one that batches."""
    python = _mlserver_python()
    port, grpc, metrics = free_port(), free_port(), free_port()
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "debug": False,
    }
    model = {
        "name": "iris",
        "implementation": "mlserver_mlflow.MLflowRuntime",
        "max_batch_size": 64,
        "max_batch_time": 0.01,
        "parameters": {"uri": str(model_path)},
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "settings.json").write_text(json.dumps(settings))
    (directory / "model-settings.json").write_text(json.dumps(model))
    url = f"http://127.0.0.1:{port}"
    with _running([str(python.with_name("mlserver")), "start", str(directory)], os.environ, directory):
        _await_answer(f"{url}/v2/models/iris/ready")
        plain = Target("MLServer /invocations", url, "/invocations", IRIS_BODY)
        batching = Target("MLServer V2, adaptive batching", url, "/v2/models/iris/infer", V2_BODY)
        yield (
            replace(plain, expected=_right_answer(plain, lambda said: said["predictions"])),
            replace(batching, expected=_right_answer(batching, lambda said: said["outputs"][0]["data"])),
        )


def _right_answer(target: Target, predictions: Callable[[Any], Any]) -> str:
    """Ask once and return the answer, which the others must equal: MLServer does not write JSON as MLflow does."""
    answer = httpx.post(
        f"{target.url}{target.path}",
        content=target.body,
        headers={"Content-Type": "application/json"},
        timeout=30,
    )
    if answer.status_code != 200 or predictions(answer.json()) != [0]:
        raise SystemExit(f"{target.name} answered {answer.status_code} {answer.text}")
    return answer.text


def _mlserver_python() -> Path:
    """MLServer's environment, made once: it cannot share one with Servery's dependencies."""
    from importlib.metadata import version

    home = CACHE.resolve() / "mlserver"
    python = home / "bin" / "python"
    if not python.exists():
        print("installing MLServer into an environment of its own ...", flush=True)
        uv = str(Path(sys.executable).with_name("uv"))
        same = [f"{name}=={version(name)}" for name in ("mlflow", "scikit-learn")]
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(home)], check=True)
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--python", str(python), *MLSERVER, *same], check=True
        )
    return python


@contextlib.contextmanager
def _running(command: Sequence[str], environment: Any, cwd: Path | None = None) -> Iterator[None]:
    path = f"{Path(command[0]).parent}{os.pathsep}{environment['PATH']}"
    with subprocess.Popen(
        command,
        cwd=cwd,
        env={**environment, "PATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            yield
        finally:
            _end(process.pid)


def _end(pid: int) -> None:
    """End a process and all it started: ``mlflow models serve`` leaves its server behind."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        family = [*process.children(recursive=True), process]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.terminate()
        for one in psutil.wait_procs(family, timeout=5)[1]:
            one.kill()


def _await_answer(url: str) -> None:
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=5).status_code == 200:
                return
        time.sleep(0.1)
    raise SystemExit(f"{url} did not answer within {START_SECONDS} s")
