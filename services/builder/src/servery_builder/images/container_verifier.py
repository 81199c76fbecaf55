"""Verify a model in a container of its own image: no network, nothing to write to, nothing left behind."""

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import docker.errors
import requests.exceptions
import structlog
from docker.utils.socket import frames_iter

from servery_builder.domain.build import BuildError
from servery_common.contracts.builds import FailureCode
from servery_common.contracts.replicas import ModelVerified, VerifyModel, VerifyProgress
from servery_common.docker_engine import CUT_OFF, Engine, EngineAway, EngineFailed
from servery_common.workload_types import GIB, larger_than, memory_of, model_memory_of

log = structlog.get_logger(__name__)

_OUT = 1
_MARGIN_SECONDS = 30.0
_ENDS_LABEL = "servery.verification.ends"
"""Epoch seconds after which nobody waits for it."""
_BUILD_LABEL = "servery.build"
_LONGEST_ERROR = 2000
_END_SECONDS = 10
"""A process whose streams have ended is gone within this."""
_NO_MEMORY = re.compile(r"\bMemoryError\b|of memory that a model's process may use")
COMMAND = ("python", "-m", "servery_worker.verification")


@dataclass(frozen=True, slots=True)
class Memory:
    """What a model may hold while it is verified."""

    bytes: int
    whose: str
    """Where the number comes from, for people."""
    advice: str
    """How to get more."""

    @property
    def exceeded(self) -> str:
        """What is told of a model that needs more."""
        return (
            f"The model needs more memory than the {self.bytes / GIB:.1f} GiB {self.whose}: {self.advice}, or serve a"
            " smaller model."
        )


def memory_for(workload_type: str, machine_bytes: int, setting: int | None) -> Memory:
    """Return what a model may hold: as much as its replicas, unless a setting says something else."""
    if setting is not None:
        return Memory(setting, "it may have here", "raise SERVERY_BUILDER_VERIFICATION_MEMORY_BYTES")
    own = memory_of(workload_type, machine_bytes)
    larger = larger_than(own, machine_bytes)
    if larger is None:
        return Memory(own, "that this machine can give", "use a machine with more")
    return Memory(own, f"of workload_type {workload_type}", f"choose workload_type {larger}")


class ContainerVerifier:
    """Runs the worker's own verification in a container, with the memory that a replica will have."""

    def __init__(self, engine: Engine, labels: dict[str, str], memory_bytes: int | None) -> None:
        """``memory_bytes`` overrules what a model's ``workload_type`` gives it."""
        self._engine = engine
        self._labels = {**labels, "servery.verification": "true"}
        self._memory_bytes = memory_bytes

    async def verify(self, request: VerifyModel, say: Callable[[str], None]) -> ModelVerified:
        """Return what came of it.

        Raises BuildError when the container could not be run or died, EngineAway when it can be tried again.
        """
        assert request.artifacts.image is not None
        try:
            machine_bytes = int((await self._engine.call(lambda client: client.info()))["MemTotal"])
            memory = memory_for(request.workload_type, machine_bytes, self._memory_bytes)
            container = await self._engine.call(lambda client: self._create(client, request, memory))
            return await self._run(container, request, memory, say)
        except (EngineFailed, docker.errors.APIError) as error:
            raise BuildError(FailureCode.IMAGE_FAILED, f"The model was not verified: {error}") from error

    async def _run(
        self, container: Any, request: VerifyModel, memory: Memory, say: Callable[[str], None]
    ) -> ModelVerified:
        loop = asyncio.get_running_loop()
        ended = threading.Event()

        def tell(line: str) -> None:
            loop.call_soon_threadsafe(say, line)

        try:
            verdict, errors = await asyncio.wait_for(
                self._engine.call_long(lambda _: _converse(container, request, tell, ended)),
                request.timeout_seconds + _MARGIN_SECONDS,
            )
            if verdict is not None and verdict.ok:
                return verdict
            state = await self._engine.call(lambda _: _state(container))
            if verdict is None and state["Running"]:
                raise EngineAway(CUT_OFF)
        except TimeoutError:
            why = f"it did not end within {request.timeout_seconds:g} s"
            raise BuildError(FailureCode.IMAGE_FAILED, f"The model was not verified: {why}") from None
        finally:
            ended.set()
            await asyncio.shield(self._remove(container))
        if state.get("OOMKilled") or (verdict is not None and _NO_MEMORY.search(verdict.error)):
            raise BuildError(FailureCode.LOAD_FAILED, memory.exceeded)
        if verdict is not None:
            return verdict
        raise _died(state, errors)

    async def remove_leftovers(self) -> None:
        """Remove what builders that were killed left: whose time is over, as another builder may use the others."""
        wanted = [f"{name}={value}" for name, value in self._labels.items()]
        try:
            found = await self._engine.call(
                lambda client: client.containers.list(all=True, filters={"label": wanted})
            )
        except (EngineAway, EngineFailed) as error:
            log.warning("leftovers_not_looked_for", reason=str(error))
            return
        for container in found:
            if float(container.labels.get(_ENDS_LABEL, 0)) < time.time():
                await self._remove(container)

    def _create(self, client: Any, request: VerifyModel, memory: Memory) -> Any:
        # Of an attempt that was cut off: the model must not be there twice.
        wanted = [
            f"{name}={value}" for name, value in (self._labels | {_BUILD_LABEL: request.build_id}).items()
        ]
        for left in client.containers.list(all=True, filters={"label": wanted}, ignore_removed=True):
            _remove_now(left)
        return client.containers.create(
            request.artifacts.image,
            entrypoint=list(COMMAND),
            environment={"SERVERY_WORKER_MODEL_MEMORY_BYTES": str(model_memory_of(memory.bytes))},
            stdin_open=True,
            network_mode="none",
            read_only=True,
            tmpfs={"/tmp": "mode=1777,size=1g"},
            user="10001:10001",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            mem_limit=memory.bytes,
            memswap_limit=memory.bytes,
            pids_limit=512,
            init=True,
            healthcheck={"test": ["NONE"]},
            labels={
                **self._labels,
                _BUILD_LABEL: request.build_id,
                _ENDS_LABEL: str(time.time() + request.timeout_seconds + _MARGIN_SECONDS),
            },
        )

    async def _remove(self, container: Any) -> None:
        try:
            await self._engine.call(lambda _: container.remove(force=True, v=True))
        except docker.errors.NotFound:
            return
        except (EngineAway, EngineFailed, docker.errors.APIError) as error:
            # The next attempt, or the next start of a builder, removes it.
            log.warning("verification_not_removed", container=container.id, reason=str(error))


def _remove_now(container: Any) -> None:
    """Raises EngineAway while the engine is still at the removal that was asked for before."""
    try:
        container.remove(force=True, v=True)
    except docker.errors.NotFound:
        return
    except docker.errors.APIError as error:
        if error.status_code != HTTPStatus.CONFLICT:
            raise
        raise EngineAway("The Docker engine still removes a container of the attempt before.") from error


def _converse(
    container: Any, request: VerifyModel, tell: Callable[[str], None], ended: threading.Event
) -> tuple[ModelVerified | None, str]:
    """Send the request and read until the container ends; return its verdict and the end of its standard error."""
    attached = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    verdict: ModelVerified | None = None
    errors, pending = "", b""
    try:
        container.start()
        with contextlib.suppress(OSError):  # of a process that has ended at once the reason is read below
            attached._sock.sendall(request.model_dump_json().encode() + b"\n")
        for stream, piece in frames_iter(attached, tty=False):
            if ended.is_set():
                break
            if stream != _OUT:
                errors = (errors + piece.decode(errors="replace"))[-_LONGEST_ERROR:]
                continue
            *lines, pending = (pending + piece).split(b"\n")
            for line in lines:
                verdict = _take(line.decode(), tell) or verdict
            if verdict is not None:
                break
    finally:
        attached.close()
    return verdict, errors


def _take(line: str, tell: Callable[[str], None]) -> ModelVerified | None:
    kind, _, body = line.partition(" ")
    if kind == ModelVerified.message_type:
        return ModelVerified.model_validate_json(body)
    if (
        kind == VerifyProgress.message_type
        and (said := VerifyProgress.model_validate_json(body).line) is not None
    ):
        tell(said)
    return None


def _state(container: Any) -> dict[str, Any]:
    """The state of a container whose process has said its last, and is given a moment to end."""
    with contextlib.suppress(requests.exceptions.ReadTimeout):
        container.wait(timeout=_END_SECONDS)
    container.reload()
    return container.attrs["State"]


def _died(state: dict[str, Any], errors: str) -> BuildError:
    last = " ".join(errors.splitlines()[-1].split())[:300] if errors.strip() else "it printed nothing"
    return BuildError(
        FailureCode.LOAD_FAILED,
        f"The process that verified the model ended with code {state.get('ExitCode')}: {last}",
    )
