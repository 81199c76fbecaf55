"""Parts of the compose file one by one, by testcontainers: their images and all that is configured for them.

What the compose file says of a part is taken from there, so that it is what is tested. Networks are the exception: here
they are reached from outside.
"""

from __future__ import annotations

import contextlib
import uuid
from types import TracebackType
from typing import Any, Self

import docker
from docker.types import Mount
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import HealthcheckWaitStrategy
from tests.containers.engine import composed

AS_THEY_ARE = (
    "entrypoint",
    "user",
    "cap_add",
    "cap_drop",
    "security_opt",
    "sysctls",
    "read_only",
    "pids_limit",
)
SECOND = 1_000_000_000


class Parts:
    """Containers that see each other under their names; they, their network and volumes go with ``__exit__``."""

    def __init__(self, images: dict[str, str] | None = None, **environment: str) -> None:
        """``images`` are used instead of the compose file's; ``environment`` is what the file is read with."""
        # It would need the engine's socket and an image of its own; what is started here is removed here.
        testcontainers_config.ryuk_disabled = True
        self._images = images or {}
        self._composed = composed(**environment)
        self._prefix = f"servery-parts-{uuid.uuid4().hex[:8]}"
        self._network = Network()
        self._volumes: set[str] = set()
        self._ends = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._network.create()
        self._ends.callback(self._network.remove)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()

    def start(
        self, name: str, *, port: int | None = None, healthy: bool = True, **more: str
    ) -> DockerContainer:
        """Start a part; return when it is healthy. ``more`` are variables beside the compose file's."""
        container = self._make(name, **self._options(name)).with_envs(**more)
        container.with_command(self._composed[name].get("command") or []).with_network_aliases(name)
        if port is not None:
            container.with_exposed_ports(port)
        if healthy:
            container.waiting_for(HealthcheckWaitStrategy().with_startup_timeout(60).with_poll_interval(0.2))
        self._ends.callback(container.stop)
        try:
            return container.start()
        except (RuntimeError, TimeoutError) as error:
            error.add_note(container.get_wrapped_container().logs(tail=40).decode())
            raise

    def run(self, name: str, *command: str) -> bytes:
        """Run a program in a part's place, beside the one that may be running; return what it prints."""
        with self._make(name, **{**self._options(name), "entrypoint": list(command)}) as container:
            ended = container.get_wrapped_container().wait(timeout=60)
            told, problems = container.get_logs()
        assert ended["StatusCode"] == 0, problems.decode()
        return told

    def _make(self, name: str, **options: Any) -> DockerContainer:
        part = self._composed[name]
        container = DockerContainer(self._images.get(name, part["image"]), **options)
        for mount in part.get("tmpfs", ()):
            container.with_tmpfs_mount(*mount.split(":"))
        return container.with_envs(**part.get("environment", {})).with_network(self._network)

    def _options(self, name: str) -> dict[str, Any]:
        part = self._composed[name]
        options: dict[str, Any] = {key: part[key] for key in AS_THEY_ARE if part.get(key) is not None}
        if check := part.get("healthcheck"):
            often = {"interval": SECOND // 2, "timeout": 3 * SECOND, "retries": 100}
            options["healthcheck"] = {"test": check["test"], **often}
        return {
            **options,
            "mem_limit": int(part["mem_limit"]),
            "mounts": [self._mount(volume) for volume in part["volumes"]],
        }

    def _mount(self, volume: dict[str, Any]) -> Mount:
        source = volume["source"]
        if volume["type"] == "volume":
            source = f"{self._prefix}-{source}"
            if source not in self._volumes:
                self._volumes.add(source)
                self._ends.callback(_remove_volume, source)
        return Mount(volume["target"], source, type=volume["type"], read_only=volume.get("read_only", False))


def read(container: DockerContainer, file: str) -> bytes:
    """Return what is in a file of a container."""
    ran = container.exec(["cat", file])
    assert ran.exit_code == 0, ran.output.decode()
    return ran.output


def _remove_volume(name: str) -> None:
    engine = docker.from_env()
    try:
        with contextlib.suppress(docker.errors.NotFound):
            engine.volumes.get(name).remove()
    finally:
        engine.close()
