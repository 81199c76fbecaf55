"""The Docker engine through docker-py, which waits, so that each call has a thread.

Needs the extra ``servery-common[docker]``, which only services have that may use the engine's socket.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import docker
import docker.errors
import requests.exceptions

from servery_common.errors import Unavailable

T = TypeVar("T")

CUT_OFF = "The connection to the Docker engine broke off: see whether it runs."
DISK_FULL = "The disk of the Docker engine is full: free some space (docker system df shows what takes it)."

TIMEOUT_SECONDS = 30
THREADS = 6


class EngineAway(Unavailable):
    """The engine cannot be reached now; the message says why and what to do, for people."""


class EngineFailed(Unavailable):
    """The engine answered that it could not do it; the message says why, for people."""


class Engine:
    """Found as Docker's own tools find it (``DOCKER_HOST``).

    Connects when it is first needed, and anew after the engine was away.
    """

    def __init__(self, service: str) -> None:
        """``service`` is who may not use it or has no socket, in messages: "controller"."""
        self._service = service
        self._client: Any = None
        self._connecting = threading.Lock()
        # Its own: an engine that hangs must not take the threads in which names are looked up.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="engine")

    async def call(self, what: Callable[[Any], T]) -> T:
        """Run ``what`` with a docker-py client, in a thread.

        Raises EngineAway, EngineFailed, or docker.errors.APIError when the request itself was refused (4xx).
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._call, what)

    async def call_long(self, what: Callable[[Any], T]) -> T:
        """As ``call``, for what takes minutes: in a thread that none of the others wait for."""
        return await asyncio.to_thread(self._call, what)

    async def image_id(self, name: str) -> str | None:
        """Return the content id of an image by its name or id; None when there is none. Raises as ``call``."""

        def look(client: Any) -> str | None:
            try:
                return cast(str, client.images.get(name).id)
            except docker.errors.ImageNotFound:
                return None

        return await self.call(look)

    def _call(self, what: Callable[[Any], T]) -> T:
        try:
            return what(self._connected())
        except docker.errors.APIError as error:
            if error.is_client_error():
                raise
            raise EngineFailed(why_failed(error)) from error
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
            self._drop()
            raise EngineAway(why_away(error, self._service)) from error

    def _connected(self) -> Any:
        with self._connecting:
            if self._client is None:
                self._client = docker.from_env(timeout=TIMEOUT_SECONDS)
            return self._client

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def why_away(error: Exception, service: str) -> str:
    """Return why an engine cannot be reached, and what to do."""
    text = str(error)
    if "Permission denied" in text or "PermissionError" in text:
        return f"The {service} may not use the Docker socket: run it in the group that owns the socket."
    if "No such file" in text or "FileNotFoundError" in text:
        return f"There is no Docker socket: mount the engine's socket into the {service}, or set DOCKER_HOST."
    if "Connection refused" in text or "ConnectionRefusedError" in text:
        return "The Docker engine does not answer: start it."
    if "RemoteDisconnected" in text or "ConnectionResetError" in text or "BrokenPipeError" in text:
        return CUT_OFF
    return f"The Docker engine cannot be used: {_one_line(text)}"


def why_failed(error: docker.errors.APIError) -> str:
    """Return what an engine said that could not do what it was asked for."""
    said = str(error.explanation or error)
    if "no space left" in said.lower():
        return DISK_FULL
    return f"The Docker engine failed: {_one_line(said)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400]
