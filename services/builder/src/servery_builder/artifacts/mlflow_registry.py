"""MLflow: which version a name means, and the files of that version.

Importing MLflow takes seconds, so it happens in a thread while the service is ready already; the first caller
waits for what is left of it. MLflow's client blocks and retries for minutes by default: its calls run in threads
of their own and its HTTP settings are tightened, so that an unreachable server is known to be one within
seconds. Its errors become Servery's here and nowhere else.
"""

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import structlog

from servery_builder.artifacts import store_errors
from servery_builder.files import is_disk_full
from servery_common.contracts.builds import ModelResolved
from servery_common.errors import Internal, InvalidParameter, NotFound, ServeryError, Unavailable
from servery_common.redaction import Redactor

log = structlog.get_logger(__name__)

T = TypeVar("T")

_SETTINGS = {
    # One more try covers a connection the server closed while it was idle; more would hide an outage.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0.2",
    # Seconds between two pieces of an answer, not for a whole download.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
_MOST_CALLS = 8


class ArtifactMissing(ServeryError):
    """The registry knows the version, but its files are gone."""


class MlflowRegistry:
    """The MLflow tracking server and model registry at one address."""

    def __init__(self, tracking_uri: str, *, in_container: bool = False) -> None:
        """``in_container``: this process runs in a container of its own, whose ``localhost`` is nothing but itself."""
        self.address = Redactor()(tracking_uri)
        self._is_own_container = in_container and _is_loopback(urlsplit(tracking_uri).hostname)
        self._tracking_uri = tracking_uri
        self._calls = asyncio.Semaphore(_MOST_CALLS)
        self._client: asyncio.Future[Any] | None = None

    async def start(self) -> None:
        """Import MLflow and make its client, once. Never raises: what is wrong is said to who asks for a model."""
        with suppress(ServeryError):
            await self._connected()

    async def resolve(self, name: str, version: str) -> ModelResolved:
        """Return the version that ``version``, a number or ``@alias``, means.

        Raises ``NotFound`` with what exists instead, ``InvalidParameter`` for a version that cannot be deployed and
        ``Unavailable`` when MLflow does not answer.
        """
        if not version.startswith("@") and not version.isdecimal():
            raise InvalidParameter(
                f"{version!r} is not a model version: give a number, or an alias as '@champion'."
            )
        client = await self._connected()
        return await self._call(lambda: _resolve(client, name, version))

    async def download(self, name: str, version: str, destination: Path) -> None:
        """Download the files of a version into a folder.

        Raises ``ArtifactMissing`` when there are none, ``Unavailable`` when MLflow or its artifact store does not
        answer, and ``OSError`` when the disk is full.
        """
        client = await self._connected()
        try:
            await self._call(lambda: _download(client, self._tracking_uri, name, version, destination))
        except ServeryError as error:
            # Of files it takes together MLflow only has the words of what was wrong.
            if is_disk_full(error) or f"[Errno {errno.ENOSPC}]" in str(error.__cause__):
                full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(destination.parent))
                raise full from error
            raise

    async def _connected(self) -> Any:
        if self._client is None or (self._client.done() and self._client.exception() is not None):
            self._client = asyncio.ensure_future(self._call(lambda: _connect(self._tracking_uri)))
        # Shielded: a caller that gives up must not take the import away from the others.
        return await asyncio.shield(self._client)

    async def _call(self, function: Callable[[], T]) -> T:
        async with self._calls:
            try:
                return await _in_thread(function)
            except ServeryError:
                raise
            except Exception as error:
                raise self._translated(error) from error

    def _translated(self, error: Exception) -> ServeryError:
        code = str(getattr(error, "error_code", ""))
        text = Redactor()(" ".join(str(error).split()))
        log.warning("mlflow_call_failed", code=code, error=f"{type(error).__name__}: {text}")
        if code in {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}:
            return Internal(f"MLflow at {self.address} refused Servery's credentials: {text}")
        problem = store_errors.explain(error)
        if problem is not None:
            return Internal(problem)
        if isinstance(error, FileNotFoundError | NotADirectoryError) or code == "RESOURCE_DOES_NOT_EXIST":
            return ArtifactMissing(text)
        if self._is_own_container:
            # No patience: what does not answer there now never will.
            return Internal(
                f"The MLflow registry of this installation is {self.address}, and inside the builder's container that"
                " is the container itself, where no MLflow runs. Set SERVERY_MLFLOW_URI to an address that the"
                " container reaches, such as http://host.docker.internal:5000 for an MLflow on the engine's machine,"
                " and start the builder again (docs/compose.md, Another registry)."
            )
        return Unavailable(f"MLflow at {self.address} does not answer: {_short(text)}")


async def _in_thread(function: Callable[[], T]) -> T:
    """Run a blocking call in a daemon thread: one that hangs must not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: T | None = None
        failed: BaseException | None = None
        try:
            result = function()
        except BaseException as error:
            failed = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result, failed)

    threading.Thread(target=run, name="mlflow", daemon=True).start()
    return await future


def _connect(tracking_uri: str) -> Any:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    mlflow.set_tracking_uri(tracking_uri)
    return mlflow.MlflowClient()


def _resolve(client: Any, name: str, version: str) -> ModelResolved:
    from mlflow.exceptions import MlflowException

    try:
        if version.startswith("@"):
            found = client.get_model_version_by_alias(name, version[1:])
        else:
            found = client.get_model_version(name, version)
    except MlflowException as error:
        # An unknown alias is answered as an invalid parameter.
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE"}:
            raise
        raise NotFound(_what_exists(client, name, version)) from error
    if found.status != "READY":
        because = f": {found.status_message}" if found.status_message else ""
        raise InvalidParameter(
            f"Version {found.version} of registered model {name!r} is not ready ({found.status}{because});"
            " only versions whose registration finished can be deployed."
        )
    return ModelResolved(
        name=name,
        version=str(found.version),
        run_id=found.run_id or None,
        source=found.source,
        registry_type="UC_MODEL" if name.count(".") == 2 else "WORKSPACE_MODEL",
    )


def _what_exists(client: Any, name: str, version: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE"}:
            return f"There is no registered model {name!r}."
        raise
    if version.startswith("@"):
        aliases = ", ".join(f"@{alias}" for alias in sorted(model.aliases))
        others = f"its aliases are {aliases}" if aliases else "it has no aliases"
        return f"Registered model {name!r} has no alias {version}; {others}."
    # MLflow's filters know both quotes and no way to escape one.
    quote = '"' if "'" in name else "'"
    versions = client.search_model_versions(
        f"name = {quote}{name}{quote}", max_results=1, order_by=["version_number DESC"]
    )
    latest = f"its latest version is {versions[0].version}" if versions else "it has no versions"
    return f"Registered model {name!r} has no version {version}; {latest}."


def _download(client: Any, tracking_uri: str, name: str, version: str, destination: Path) -> None:
    import mlflow.artifacts
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if "#" in name or "?" in name:
        # MLflow parses "models:/name/version" as a URL, in which these would end the name.
        files = get_artifact_repository(client.get_model_version_download_uri(name, version))
        files.download_artifacts("", str(destination))
        return
    mlflow.artifacts.download_artifacts(
        artifact_uri=f"models:/{name}/{version}", dst_path=str(destination), tracking_uri=tracking_uri
    )


def _is_loopback(host: str | None) -> bool:
    if host is None:
        return False
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:297]}..."
