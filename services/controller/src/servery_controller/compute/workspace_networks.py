"""A network for each workspace, which leads to NATS and nowhere else."""

import ipaddress
from collections.abc import Iterator
from typing import Any

import docker.errors
import structlog
from docker.types import IPAMConfig, IPAMPool

from servery_common.errors import Unavailable
from servery_controller.compute.container_spec import INSTALLATION, WORKSPACE

log = structlog.get_logger()

_NO_HOST = {
    # The bridge has no address, so that what listens on the machine itself is not reached through it. Engines from 27
    # on know the second name, older ones the first; each leaves alone what it does not know.
    "com.docker.network.bridge.inhibit_ipv4": "true",
    "com.docker.network.bridge.gateway_mode_ipv4": "isolated",
}

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

    def ensure(self, client: Any, workspace_id: str) -> str:
        """Return the name of the workspace's network; it exists, leads nowhere, and NATS is in it."""
        name = f"{self._installation}-workspace-{workspace_id}"
        network = self._find(client, name)
        if network is not None and not _is_right(network, self._installation):
            # Left half-made, or somebody else's of this name. What is in it is not ours.
            log.warning("network_made_anew", network=name)
            for container_id in network.attrs.get("Containers") or {}:
                network.disconnect(container_id, force=True)
            network.remove()
            network = None
        if network is None:
            network = self._make(client, name, workspace_id)
        self._connect_nats(client, network)
        return name

    def repair(self, client: Any) -> None:
        """Connect NATS again to every network, after its container was replaced."""
        for network in client.networks.list(filters={"label": [f"{INSTALLATION}={self._installation}"]}):
            network.reload()
            self._connect_nats(client, network)

    def _find(self, client: Any, name: str) -> Any:
        for network in client.networks.list(names=[name]):
            if network.name == name:
                network.reload()
                return network
        return None

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
                    check_duplicate=True,
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


def _is_right(network: Any, installation: str) -> bool:
    told = network.attrs
    return (
        bool(told.get("Internal"))
        and (told.get("Labels") or {}).get(INSTALLATION) == installation
        and _NO_HOST.items() <= (told.get("Options") or {}).items()
    )


def _taken(client: Any) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    for network in client.networks.list():
        for config in (network.attrs.get("IPAM") or {}).get("Config") or []:
            if subnet := config.get("Subnet"):
                yield ipaddress.ip_network(subnet, strict=False)
