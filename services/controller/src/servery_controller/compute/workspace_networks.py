"""A network for each workspace, which leads to NATS and nowhere else."""

import contextlib
import ipaddress
import threading
from collections.abc import Iterator
from typing import Any

import docker.errors
import structlog
from docker.types import IPAMConfig, IPAMPool

from servery_common.errors import Unavailable
from servery_controller.compute.container_spec import INSTALLATION, WORKSPACE

log = structlog.get_logger()

_NO_HOST = {"com.docker.network.bridge.inhibit_ipv4": "true"}
"""The bridge has no address, so that what listens on the machine itself is not reached through it."""

ALIAS = "nats"
"""The name replicas know NATS by."""


class WorkspaceNetworks:
    """Made and put right whenever a container is about to join one. Methods wait: call them in a thread."""

    def __init__(
        self, installation: str, nats_container: str | None, pool: str, prefix_length: int = 26
    ) -> None:
        """``nats_container`` names NATS' container; without it the compose project of this name has one."""
        self._installation = installation
        self._nats_container = nats_container
        self._pool = ipaddress.ip_network(pool)
        self._prefix_length = prefix_length
        self._one_at_a_time = threading.Lock()
        """Engines make two networks of one name when they are asked twice at once."""

    def ensure(self, client: Any, workspace_id: str) -> str:
        """Return the id of the workspace's network; it exists, leads nowhere, and NATS is in it.

        Raises Unavailable when the name is somebody else's.
        """
        name = f"{self._installation}-workspace-{workspace_id}"
        with self._one_at_a_time:
            network = self._find(client, name)
            if network is None:
                self._make(client, name, workspace_id)
                # Another controller may have made one at the same time: both take the same of the two.
                network = self._find(client, name)
            if network is None:
                raise Unavailable(f"The network {name} was removed while a replica was about to join it.")
            self._connect_nats(client, network)
            return network.id

    def repair(self, client: Any) -> None:
        """Connect NATS again to every network, after its container was replaced."""
        with self._one_at_a_time:
            for network in client.networks.list(filters={"label": [f"{INSTALLATION}={self._installation}"]}):
                network.reload()
                self._connect_nats(client, network)

    def _find(self, client: Any, name: str) -> Any:
        """The network of this name, of several the one with the lowest id. Those that are not right go, if empty."""
        found: list[Any] = []
        for network in client.networks.list(names=[name]):
            if network.name != name:
                continue
            network.reload()
            if (network.attrs.get("Labels") or {}).get(INSTALLATION) != self._installation:
                raise Unavailable(
                    f"Another network has the name {name}: remove it (docker network rm {name}), or choose another"
                    " SERVERY_CONTROLLER_DOCKER_INSTALLATION."
                )
            found.append(network)
        found.sort(key=lambda network: (not _is_right(network), network.id))
        for other in found[1:] if found and _is_right(found[0]) else found:
            self._remove_if_empty(client, other)
        return found[0] if found and _is_right(found[0]) else None

    def _remove_if_empty(self, client: Any, network: Any) -> None:
        """Of a network left half-made or made by an older release. Replicas in it keep it until they have gone."""
        nats = self._nats(client).id
        if set(network.attrs.get("Containers") or {}) - {nats}:
            return
        log.warning("network_removed", network=network.name, id=network.id)
        with contextlib.suppress(docker.errors.APIError):  # it was not in it
            network.disconnect(nats, force=True)
        try:
            network.remove()
        except docker.errors.APIError as error:
            log.warning("network_not_removed", network=network.name, reason=str(error.explanation))

    def _make(self, client: Any, name: str, workspace_id: str) -> Any:
        taken = list(_taken(client))
        for subnet in self._pool.subnets(new_prefix=self._prefix_length):
            if any(subnet.overlaps(other) for other in taken if other.version == subnet.version):
                continue
            try:
                network = client.networks.create(
                    name,
                    driver="bridge",
                    internal=True,
                    options=_NO_HOST,
                    labels={INSTALLATION: self._installation, WORKSPACE: workspace_id},
                    ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=str(subnet))]),
                )
            except docker.errors.APIError as error:
                if "overlap" in str(error).lower():  # with something the engine does not show
                    continue
                raise
            network.reload()
            return network
        raise Unavailable(
            f"No subnet of {self._pool} is free for another workspace's network: set a larger"
            " SERVERY_CONTROLLER_DOCKER_SUBNETS."
        )

    def _connect_nats(self, client: Any, network: Any) -> None:
        nats = self._nats(client)
        if nats.id in (network.attrs.get("Containers") or {}):
            return
        try:
            network.connect(nats, aliases=[ALIAS])
        except docker.errors.APIError as error:
            if "already exists" not in str(error):
                raise
        else:
            log.info("nats_connected_to_network", network=network.name)

    def _nats(self, client: Any) -> Any:
        if self._nats_container is not None:
            try:
                return client.containers.get(self._nats_container)
            except docker.errors.NotFound:
                raise Unavailable(
                    f"There is no container {self._nats_container} that NATS runs in."
                ) from None
        labels = [f"com.docker.compose.project={self._installation}", "com.docker.compose.service=nats"]
        found = client.containers.list(filters={"label": labels})
        if not found:
            raise Unavailable(
                f"The compose project {self._installation} has no running container of NATS: start it, or name its"
                " container with SERVERY_CONTROLLER_DOCKER_NATS_CONTAINER."
            )
        return found[0]


def _is_right(network: Any) -> bool:
    return (
        bool(network.attrs.get("Internal"))
        and _NO_HOST.items() <= (network.attrs.get("Options") or {}).items()
    )


def _taken(client: Any) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    for network in client.networks.list():
        for config in (network.attrs.get("IPAM") or {}).get("Config") or []:
            if subnet := config.get("Subnet"):
                yield ipaddress.ip_network(subnet, strict=False)
