"""The Docker engine through docker-py, which waits, so that each call has a thread of its own."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import docker
import docker.errors
import requests.exceptions

from servery_common.errors import Unavailable

T = TypeVar("T")

TIMEOUT_SECONDS = 20
THREADS = 6


class Engine:
    """Connects when it is first needed, and anew after the engine was away."""

    def __init__(self) -> None:
        self._client: Any = None
        # Its own: an engine that hangs must not take the threads in which names are looked up.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="engine")

    async def call(self, what: Callable[[Any], T]) -> T:
        """Run ``what`` with a client. Raises Unavailable, for people, or docker.errors.APIError when it was refused."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._call, what)

    def _call(self, what: Callable[[Any], T]) -> T:
        try:
            if self._client is None:
                self._client = docker.from_env(timeout=TIMEOUT_SECONDS)
            return what(self._client)
        except docker.errors.APIError as error:
            if error.is_client_error():
                raise
            raise Unavailable(why_away(error)) from error
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
            self._drop()
            raise Unavailable(why_away(error)) from error

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def why_away(error: Exception) -> str:
    """Return what is the matter with an engine that did not do it, and what to do."""
    text = str(error)
    if "no space left" in text.lower():
        return (
            "The disk of the Docker engine is full: free some space (docker system df shows what takes it)."
        )
    if "Permission denied" in text or "PermissionError" in text:
        return "The controller may not use the Docker socket: run it in the group that owns the socket."
    if "No such file" in text or "FileNotFoundError" in text:
        return "There is no Docker socket: mount the engine's socket into the controller, or set DOCKER_HOST."
    if "Connection refused" in text or "ConnectionRefusedError" in text:
        return "The Docker engine does not answer: start it."
    return f"The Docker engine cannot be used: {' '.join(text.split())[:200]}"
