"""The Docker engine, as far as the builder needs it. docker-py waits, so each call has a thread."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import docker
import docker.errors
import requests.exceptions

T = TypeVar("T")

_TIMEOUT_SECONDS = 30
_THREADS = 4


class EngineAway(Exception):
    """The engine cannot be used now; the text says why and what to do, for people."""


class Engine:
    """Connects when it is first needed, and again after the engine was away."""

    def __init__(self) -> None:
        self._client: Any = None
        # Its own: an engine that hangs must not take the threads in which names are looked up.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="engine")

    async def call(self, what: Callable[[Any], T]) -> T:
        """Run ``what`` with a docker-py client, in a thread. Raises EngineAway."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._call, what)
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
            if isinstance(error, docker.errors.APIError) and error.is_client_error():
                raise
            client, self._client = self._client, None
            if client is not None:
                client.close()
            raise EngineAway(why_away(error)) from error

    async def image_id(self, name: str) -> str | None:
        """Return the content id of an image by its name or id; None when there is none. Raises EngineAway."""

        def look(client: Any) -> str | None:
            try:
                return cast(str, client.images.get(name).id)
            except docker.errors.ImageNotFound:
                return None

        return await self.call(look)

    def _call(self, what: Callable[[Any], T]) -> T:
        if self._client is None:
            self._client = docker.from_env(timeout=_TIMEOUT_SECONDS)
        return what(self._client)


def why_away(error: Exception) -> str:
    """Return one sentence about an engine that did not answer."""
    text = str(error)
    if "Permission denied" in text or "PermissionError" in text:
        return "The builder may not use the Docker socket: run it in the group that owns the socket."
    if "No such file" in text or "FileNotFoundError" in text:
        return "There is no Docker socket: mount the engine's socket into the builder, or set DOCKER_HOST."
    if "Connection refused" in text or "ConnectionRefusedError" in text:
        return "The Docker engine does not answer: start it."
    return f"The Docker engine cannot be used: {' '.join(text.split())[:200]}"
