"""The containers of one installation's replicas, as the engine shows them. Methods wait: call them in a thread."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import docker.errors

from servery_common.contracts.replicas import ReplicaLaunch
from servery_common.errors import Unavailable
from servery_controller.compute.backend import ArtifactsGone
from servery_controller.compute.container_spec import (
    ENDPOINT,
    INSTALLATION,
    REPLICA,
    SERVED_ENTITY,
    Access,
    Machine,
    container_name,
    container_options,
    verdict,
)
from servery_controller.compute.replica_networks import ReplicaNetworks

LOG_LINES = 1000


@dataclass(frozen=True, slots=True)
class SeenContainer:
    """A replica's container at one moment."""

    replica_id: str
    endpoint_id: str
    served_entity_id: str
    alive: bool
    """Created or running; it has not ended."""
    started: bool = True
    """False while it is only created: whoever made it may have died before it was started."""
    reason: str = ""
    """Why it has ended, for people."""
    log: str = ""
    """Its last lines, once it has ended."""
    memory_bytes: int = 0
    """Its limit."""


class Containers:
    """Makes, lists and removes them."""

    def __init__(self, installation: str, networks: ReplicaNetworks, cpus: float) -> None:
        self._installation = installation
        self._networks = networks
        self._cpus = cpus
        self._ended: dict[str, SeenContainer] = {}
        """What was found out about those that have ended, by container id: it does not change."""

    def machine(self, client: Any) -> Machine:
        """Return what the engine's machine has."""
        info = client.info()
        return Machine(cpus=int(info["NCPU"]), memory_bytes=int(info["MemTotal"]))

    def list(self, client: Any) -> Mapping[str, SeenContainer]:
        """Return all of this installation's, by replica id."""
        filters = {"label": [f"{INSTALLATION}={self._installation}", REPLICA]}
        seen: dict[str, SeenContainer] = {}
        ended: dict[str, SeenContainer] = {}
        for container in client.containers.list(all=True, filters=filters, ignore_removed=True):
            refused = container.status == "created" and container.attrs["State"].get("Error")
            if container.status in ("exited", "dead") or refused:
                one = self._ended.get(container.id) or _ended(container)
                ended[container.id] = one
            else:
                one = _seen(
                    container, alive=container.status != "removing", started=container.status != "created"
                )
            seen[one.replica_id] = one
        self._ended = ended
        return seen

    def create(self, client: Any, launch: ReplicaLaunch, access: Access, machine: Machine) -> None:
        """Create and start a replica's container, if there is none. Raises ArtifactsGone or Unavailable."""
        image = launch.artifacts.image
        if image is None:
            raise ArtifactsGone("The model has no image, as it was built before replicas were containers.")
        try:
            found = client.images.get(image)
        except docker.errors.ImageNotFound:
            raise ArtifactsGone(f"The model's image {image[:19]} is not there any more.") from None
        if found.id != image:
            raise Unavailable(f"The engine has another image under the name {image[:19]} than was verified.")
        network = self._networks.ensure(client, launch)
        options = container_options(self._installation, launch, network, access, machine, self._cpus)
        try:
            container = client.containers.create(image, **options)
        except docker.errors.APIError as error:
            if error.status_code != 409:
                raise
            container = client.containers.get(options["name"])
            if container.labels.get(REPLICA) != launch.replica_id:
                raise Unavailable(
                    f"Another container has the name {options['name']}: remove it (docker rm -f {options['name']})."
                ) from error
        if container.status == "created":
            try:
                container.start()
            except docker.errors.APIError:
                container.remove(force=True, v=True)
                raise

    def remove(self, client: Any, replica_id: str) -> str:
        """Remove a replica's container, running or not; return its last lines."""
        try:
            container = client.containers.get(container_name(self._installation, replica_id))
        except docker.errors.NotFound:
            return ""
        if container.labels.get(INSTALLATION) != self._installation:
            return ""
        lines = _log(container)
        try:
            container.remove(force=True, v=True)
        except docker.errors.NotFound:
            return lines
        return lines

    def log(self, client: Any, replica_id: str, tail: int) -> str:
        """Return the last lines of a container; empty when there is none."""
        try:
            container = client.containers.get(container_name(self._installation, replica_id))
        except docker.errors.NotFound:
            return ""
        return _log(container, tail)


def _seen(
    container: Any, *, alive: bool, started: bool = True, reason: str = "", log: str = ""
) -> SeenContainer:
    labels = container.labels
    return SeenContainer(
        labels[REPLICA],
        labels.get(ENDPOINT, ""),
        labels.get(SERVED_ENTITY, ""),
        alive,
        started,
        reason,
        log,
        _memory(container),
    )


def _ended(container: Any) -> SeenContainer:
    lines = _log(container)
    reason = verdict(container.attrs["State"], _memory(container), lines)
    return _seen(container, alive=False, reason=reason, log=lines)


def _memory(container: Any) -> int:
    return int(container.attrs["HostConfig"].get("Memory") or 0)


def _log(container: Any, tail: int = LOG_LINES) -> str:
    try:
        return container.logs(tail=tail).decode(errors="replace")
    except docker.errors.APIError:
        return ""
