"""The builder's surroundings: an MLflow registry with models, a worker, somebody who orders builds."""

import asyncio
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import yaml
from mlflow import MlflowClient

from servery_builder.app import run
from servery_builder.settings import BuilderSettings
from servery_common.contracts import subjects
from servery_common.contracts.builds import (
    BuildLog,
    BuildRequested,
    BuildStatus,
    DescribeBuild,
    ModelEnvironment,
    ReadBuildLog,
    ReadModelEnvironment,
)
from servery_common.contracts.message import Message
from servery_common.contracts.replicas import ModelVerified, VerifyModel, VerifyProgress
from servery_common.contracts.states import BuildState
from servery_common.errors import ServeryError, Unavailable
from servery_common.messaging.bus import connect_bus
from servery_common.messaging.port import Bus
from servery_common.postgres import Pool
from servery_common.service import ServiceContext
from servery_common.settings import NatsSettings

MLFLOW_WHEEL = "mlflow_skinny-3.1.0-py3-none-any.whl"
R = TypeVar("R", bound=Message)
TERMINAL = {BuildState.SUCCEEDED, BuildState.FAILED}


class Registry:
    """A real MLflow registry in a SQLite file. Models are written by hand: quick, and as broken as a test needs."""

    def __init__(self, directory: Path) -> None:
        self.uri = f"sqlite:///{directory / 'mlflow.db'}"
        self._directory = directory
        self._client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def register(
        self,
        requirements: list[str],
        *,
        python: str = "3.11.7",
        name: str | None = None,
        flavor: Mapping[str, object] | None = None,
        without: tuple[str, ...] = (),
        extra: Mapping[str, str] | None = None,
    ) -> tuple[str, str]:
        """Register a version and return its name and version.

        A wheel inside the model stands for MLflow, which a real model would have among its requirements.
        """
        name = name or f"model-{uuid4().hex[:8]}"
        source = self._directory / "artifacts" / uuid4().hex
        source.mkdir(parents=True)
        python_function = {
            "loader_module": "mlflow.pyfunc.model",
            "python_version": python,
            "env": {"virtualenv": "python_env.yaml", "conda": "conda.yaml"},
            **(flavor or {}),
        }
        files = {
            "MLmodel": yaml.safe_dump(
                {"flavors": {"python_function": python_function}, "mlflow_version": "3.1.0"}
            ),
            "python_env.yaml": yaml.safe_dump(
                {"python": python, "build_dependencies": [], "dependencies": ["-r requirements.txt"]}
            ),
            "requirements.txt": "\n".join([f"./{MLFLOW_WHEEL}", *requirements]),
            **(extra or {}),
        }
        write_wheel(source / MLFLOW_WHEEL)
        for file, text in files.items():
            if file not in without:
                (source / file).parent.mkdir(exist_ok=True)
                (source / file).write_text(text)
        if not any(model.name == name for model in self._client.search_registered_models(f"name = '{name}'")):
            self._client.create_registered_model(name)
        version = self._client.create_model_version(name, str(source))
        return name, str(version.version)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        self._client.set_registered_model_alias(name, alias, version)


def write_wheel(path: Path) -> None:
    """Write a wheel with one empty module."""
    name, version = path.name.split("-")[:2]
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}_stub.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in (files | {f"{info}/RECORD": record}).items():
            # A fixed time: the same wheel has the same bytes in every model.
            wheel.writestr(zipfile.ZipInfo(file, (2026, 1, 1, 0, 0, 0)), text)


class FakeWorker:
    """A worker that answers VerifyModel as the test wants; the real one is tested from end to end."""

    def __init__(self) -> None:
        self.requests: list[VerifyModel] = []
        self.result = ModelVerified(build_id="", ok=True, example_predicted=True, python_version="3.11.7")
        self.prints: list[str] = ["model loaded"]
        self.hangs = asyncio.Event()
        """While set, a verification shows progress and does not end."""

    async def join(self, bus: Bus) -> None:
        await bus.serve_stream(
            subjects.worker_verify(), VerifyModel, self.verify, queue=subjects.WORKER_QUEUE
        )

    async def verify(self, request: VerifyModel) -> AsyncIterator[VerifyProgress | ModelVerified]:
        self.requests.append(request)
        for line in self.prints:
            yield VerifyProgress(build_id=request.build_id, line=line)
        while self.hangs.is_set():
            yield VerifyProgress(build_id=request.build_id)
            await asyncio.sleep(0.1)
        yield self.result.model_copy(update={"build_id": request.build_id})


class Orderer:
    """Orders builds, asks how they went and says what a model is given, as the controller does."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.environment: dict[str, str] | ServeryError = {}
        """The variables of every model, or why there are none."""
        self.workload_type = "CPU"

    async def join(self) -> "Orderer":
        await self._bus.serve(
            subjects.controller_model_environment(),
            ReadModelEnvironment,
            self._model_environment,
            queue=subjects.CONTROLLER_QUEUE,
        )
        return self

    async def _model_environment(self, ask: ReadModelEnvironment) -> ModelEnvironment:
        if isinstance(self.environment, ServeryError):
            raise self.environment
        return ModelEnvironment(variables=self.environment, workload_type=self.workload_type)

    async def order(self, model: tuple[str, str], build_id: str | None = None) -> str:
        build_id = build_id or f"b{uuid4().hex[:16]}"
        order = BuildRequested(
            build_id=build_id,
            endpoint_id="ep1",
            served_entity_id="se1",
            model_name=model[0],
            model_version=model[1],
        )
        await self._bus.publish(subjects.build_job(build_id), order, event_id=uuid4().hex)
        return build_id

    async def describe(self, build_id: str) -> BuildStatus:
        return await self._ask(subjects.builder_describe(), DescribeBuild(build_id=build_id), BuildStatus)

    async def log(self, build_id: str) -> str:
        return (await self._ask(subjects.builder_log(), ReadBuildLog(build_id=build_id), BuildLog)).text

    async def _ask(self, subject: str, question: Message, reply: type[R]) -> R:
        """Ask until a builder is there."""
        deadline = time.monotonic() + 30
        while True:
            try:
                return await self._bus.request(subject, question, reply, timeout=5)
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)

    async def ended(self, build_id: str, *, seconds: float = 60) -> BuildStatus:
        """Wait for the end of a build."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = await self.describe(build_id)
            if status.state in TERMINAL:
                return status
            await asyncio.sleep(0.05)
        raise TimeoutError(f"build {build_id} did not end:\n{await self.log(build_id)}")

    async def until_log_has(self, build_id: str, text: str, *, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while text not in (log := await self.log(build_id)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{text!r} is not in the log of build {build_id}:\n{log}")
            await asyncio.sleep(0.05)


@asynccontextmanager
async def running_builder(nats_url: str, settings: BuilderSettings, pool: Pool) -> AsyncIterator[None]:
    """A builder in this process, for the time of the block; ended as by SIGTERM."""
    context = ServiceContext("builder")
    async with connect_bus(NatsSettings(url=nats_url), name="builder") as bus:
        running = asyncio.create_task(run(context, settings, pool, bus))
        try:
            await Orderer(bus).describe("nothing")
            yield
        finally:
            context.stop()
            await running
            await context.cancel_tasks()
    assert not context.failed


def start_builder_process(
    nats_url: str, postgres_url: str, settings: BuilderSettings
) -> subprocess.Popen[bytes]:
    """A builder as a process of its own, which a test may kill."""
    return subprocess.Popen(
        [sys.executable, "-m", "servery_builder"],
        env=os.environ
        | {
            "SERVERY_NATS_URL": nats_url,
            "SERVERY_POSTGRES_URL": postgres_url,
            "SERVERY_ARTIFACTS_DIR": str(settings.artifacts_dir),
            "MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri,
            "SERVERY_BUILDER_LEASE": f"PT{settings.lease.total_seconds():.0f}S",
        },
    )
