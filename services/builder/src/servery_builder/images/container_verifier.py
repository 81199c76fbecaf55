"""Verify a model in a container of its own image: no network, nothing to write to, nothing left behind."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import docker.errors
import structlog
from docker.utils.socket import frames_iter

from servery_builder.domain.build import BuildError
from servery_builder.images.engine import Engine, EngineAway
from servery_common.contracts.builds import FailureCode
from servery_common.contracts.replicas import ModelVerified, VerifyModel, VerifyProgress

log = structlog.get_logger(__name__)

_OUT = 1
_MARGIN_SECONDS = 30.0
_ENDS_LABEL = "servery.verification.ends"
"""Epoch seconds after which nobody waits for it."""
_LONGEST_ERROR = 2000
COMMAND = ("python", "-m", "servery_worker.verification")


class ContainerVerifier:
    """Runs the worker's own verification in a container."""

    def __init__(self, engine: Engine, labels: dict[str, str], memory_bytes: int | None) -> None:
        """Without ``memory_bytes`` a model may hold nine tenths of what the engine's machine has."""
        self._engine = engine
        self._labels = {**labels, "servery.verification": "true"}
        self._memory_bytes = memory_bytes

    async def verify(self, request: VerifyModel, say: Callable[[str], None]) -> ModelVerified:
        """Return what came of it. Raises BuildError when the container could not be run or died."""
        assert request.artifacts.image is not None
        loop = asyncio.get_running_loop()
        ended = threading.Event()

        def tell(line: str) -> None:
            loop.call_soon_threadsafe(say, line)

        try:
            container = await self._engine.call(lambda client: self._create(client, request))
        except (EngineAway, docker.errors.APIError) as error:
            raise BuildError(FailureCode.IMAGE_FAILED, f"The model cannot be verified: {error}") from error
        try:
            verdict, errors = await asyncio.wait_for(
                asyncio.to_thread(_run, container, request, tell, ended),
                request.timeout_seconds + _MARGIN_SECONDS,
            )
            if verdict is not None:
                return verdict
            state = await self._engine.call(lambda _: _state(container))
        except (EngineAway, docker.errors.APIError, TimeoutError) as error:
            why = str(error) or f"it did not end within {request.timeout_seconds:g} s"
            raise BuildError(FailureCode.IMAGE_FAILED, f"The model was not verified: {why}") from error
        finally:
            ended.set()
            await asyncio.shield(self._remove(container))
        raise _died(state, errors, int(container.attrs["HostConfig"]["Memory"]))

    async def remove_leftovers(self) -> None:
        """Remove what builders that were killed left: whose time is over, as another builder may use the others."""
        wanted = [f"{name}={value}" for name, value in self._labels.items()]
        try:
            found = await self._engine.call(
                lambda client: client.containers.list(all=True, filters={"label": wanted})
            )
        except EngineAway as error:
            log.warning("leftovers_not_looked_for", reason=str(error))
            return
        for container in found:
            if float(container.labels.get(_ENDS_LABEL, 0)) < time.time():
                await self._remove(container)

    def _create(self, client: Any, request: VerifyModel) -> Any:
        memory = self._memory_bytes or int(client.info()["MemTotal"]) * 9 // 10
        return client.containers.create(
            request.artifacts.image,
            entrypoint=list(COMMAND),
            stdin_open=True,
            network_mode="none",
            read_only=True,
            tmpfs={"/tmp": "mode=1777,size=1g"},
            user="10001:10001",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            mem_limit=memory,
            memswap_limit=memory,
            pids_limit=512,
            init=True,
            healthcheck={"test": ["NONE"]},
            labels={
                **self._labels,
                "servery.build": request.build_id,
                _ENDS_LABEL: str(time.time() + request.timeout_seconds + _MARGIN_SECONDS),
            },
        )

    async def _remove(self, container: Any) -> None:
        try:
            await self._engine.call(lambda _: container.remove(force=True, v=True))
        except docker.errors.NotFound:
            return
        except (EngineAway, docker.errors.APIError) as error:
            # The next start of a builder removes it.
            log.warning("verification_not_removed", container=container.id, reason=str(error))


def _run(
    container: Any, request: VerifyModel, tell: Callable[[str], None], ended: threading.Event
) -> tuple[ModelVerified | None, str]:
    """Send the request and read until the container ends; return its verdict and the end of its standard error."""
    attached = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    verdict: ModelVerified | None = None
    errors, pending = "", b""
    try:
        container.start()
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
    container.reload()
    return container.attrs["State"]


def _died(state: dict[str, Any], errors: str, memory_bytes: int) -> BuildError:
    if state.get("OOMKilled"):
        return BuildError(
            FailureCode.LOAD_FAILED,
            f"The model needs more memory to load than the {memory_bytes / 2**30:.1f} GiB it may have here: log a"
            " smaller model, or raise SERVERY_BUILDER_VERIFICATION_MEMORY_BYTES.",
        )
    last = " ".join(errors.splitlines()[-1].split())[:300] if errors.strip() else "it printed nothing"
    return BuildError(
        FailureCode.LOAD_FAILED,
        f"The process that verified the model ended with code {state.get('ExitCode')}: {last}",
    )
