"""A network for each replica, in which are its container and NATS' and nobody else (docs/decisions/0033).

``ensure`` makes one before the container; ``reconcile`` looks after all of them: NATS is in each, also after its own
container was replaced, and those whose replica has no container go.
"""

import contextlib
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from ipaddress import IPv4Network, ip_network
from typing import Any

import docker.errors
import structlog
from docker.types import IPAMConfig, IPAMPool

from servery_common.contracts.replicas import ReplicaLaunch
from servery_common.errors import Unavailable
from servery_controller.compute.container_spec import INSTALLATION, REPLICA, container_name, labels_of
from servery_controller.compute.nats_container import find_nats_container
from servery_controller.compute.subnets import free_subnets

log = structlog.get_logger()

_NO_HOST = {"com.docker.network.bridge.inhibit_ipv4": "true"}
"""The bridge has no address, so that what listens on the machine itself is not reached through it."""

ALIAS = "nats"
"""The name replicas know NATS by."""

UNUSED_SECONDS = 120.0
"""Whoever made a network makes the container within seconds. One that has had none for so long was left behind."""


class ReplicaNetworks:
    """Of one installation. Methods wait: call them in a thread. ``clock`` returns monotonic seconds."""

    def __init__(
        self,
        installation: str,
        nats_container: str | None,
        pool: IPv4Network,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``nats_container`` names NATS' container; without it the compose project of this name has one."""
        self._installation = installation
        self._nats_container = nats_container
        self._pool = pool
        self._clock = clock
        self._kept_until: dict[str, float] = {}
        """How long a network may be without its replica's container, by network id. Several threads write it."""

    def ensure(self, client: Any, launch: ReplicaLaunch) -> str:
        """Return the id of a replica's network; it exists, leads nowhere, and NATS is in it.

        Raises Unavailable when there is no NATS, no subnet is free, or the name is somebody else's.
        """
        name = container_name(self._installation, launch.replica_id)
        nats = self._nats(client)
        networks = client.networks.list()
        network = self._find(networks, name, nats)
        if network is None:
            self._make(client, name, launch, networks)
            # Another controller may have made one at the same time: both take the same of the two.
            network = self._find(client.networks.list(names=[name]), name, nats)
        if network is None:
            raise Unavailable(f"The network {name} was removed while its replica was about to join it.")
        # From now on, not from an earlier try, which may have been long ago.
        self._kept_until[network.id] = self._clock() + UNUSED_SECONDS
        _connect(network, nats)
        return network.id

    def reconcile(self, client: Any, replicas: Collection[str]) -> None:
        """Connect NATS to every network it is not in, and remove those of none of ``replicas``, which have containers.

        A network goes with its container, as a replica never gets another one. Without one it may be about to come; so
        may another replica's in a network of a whole workspace, as releases before made them.
        """
        nats = self._nats(client)
        joined = _networks_of(nats)
        now = self._clock()
        listed: set[str] = set()
        for network in client.networks.list(filters={"label": [f"{INSTALLATION}={self._installation}"]}):
            listed.add(network.id)
            if _labels(network).get(REPLICA) in replicas:
                self._kept_until[network.id] = now
            elif now >= self._kept_until.setdefault(network.id, now + UNUSED_SECONDS):
                if _remove(network, nats):
                    continue
                nats.reload()  # It may have been taken out of a network that stays after all.
                joined = _networks_of(nats)
            if network.id not in joined:
                self._repair(network, nats)
        for gone in [one for one in list(self._kept_until) if one not in listed]:
            self._kept_until.pop(gone, None)

    def _repair(self, network: Any, nats: Any) -> None:
        try:
            _connect(network, nats)
        except docker.errors.APIError as error:  # the others need NATS all the same
            log.warning("network_not_repaired", network=network.name, reason=str(error.explanation))
        else:
            log.info("nats_connected_to_network", network=network.name)

    def _find(self, networks: Iterable[Any], name: str, nats: Any) -> Any:
        """The network of this name, of several the oldest. Those that are not right go."""
        found: list[Any] = []
        for network in networks:
            if network.name != name:
                continue
            ours = _labels(network).get(INSTALLATION) == self._installation
            if ours and _is_right(network):
                found.append(network)
            elif not ours or not _remove(network, nats):
                raise Unavailable(
                    f"Another network has the name {name}: remove it (docker network rm {name}), or choose another"
                    " SERVERY_CONTROLLER_DOCKER_INSTALLATION."
                )
        # The oldest is the one that whoever made it has seen, whenever they looked.
        found.sort(key=lambda network: (made_at(network), network.id))
        for other in found[1:]:
            _remove(other, nats)
        return found[0] if found else None

    def _make(self, client: Any, name: str, launch: ReplicaLaunch, networks: Iterable[Any]) -> None:
        """Make a network; ``networks`` are all there are. One that is made by another controller meanwhile will do."""
        for subnet in free_subnets(self._pool, _subnets_of(networks), zlib.crc32(name.encode())):
            try:
                client.networks.create(
                    name,
                    driver="bridge",
                    internal=True,
                    options=_NO_HOST,
                    labels=dict(labels_of(self._installation, launch)),
                    ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=str(subnet))]),
                )
            except docker.errors.APIError as error:
                # With one made meanwhile, or something the engine does not show.
                if "overlap" in str(error).lower():
                    continue
                # There is one of this name; or there was, and went because another controller's is older.
                if error.status_code not in (404, 409):
                    raise
            return
        raise Unavailable(
            f"No subnet of {self._pool} is free for another replica's network: set a larger"
            " SERVERY_CONTROLLER_DOCKER_SUBNETS."
        )

    def _nats(self, client: Any) -> Any:
        return find_nats_container(client, self._installation, self._nats_container)


def made_at(network: Any) -> datetime:
    """Return when the engine made a network. As text the order would be another: it leaves zeros at the end out."""
    return datetime.fromisoformat(network.attrs["Created"])


def _connect(network: Any, nats: Any) -> None:
    if network.id in _networks_of(nats):
        return
    try:
        network.connect(nats, aliases=[ALIAS])
    except docker.errors.APIError as error:
        if "already exists" not in str(error):
            raise


def _remove(network: Any, nats: Any) -> bool:
    """Remove a network unless somebody but NATS is in it; return whether it is gone."""
    try:
        network.reload()
        if set(network.attrs.get("Containers") or {}) - {nats.id}:
            return False
        # Also a NATS that is stopped: it could not be started again as a member of a network that is gone.
        with contextlib.suppress(docker.errors.APIError):  # it was not in it
            network.disconnect(nats, force=True)
        network.remove()
    except docker.errors.NotFound:
        return True
    except docker.errors.APIError as error:
        log.warning("network_not_removed", network=network.name, reason=str(error.explanation))
        return False
    log.info("network_removed", network=network.name)
    return True


def _networks_of(container: Any) -> Collection[str]:
    return {one["NetworkID"] for one in container.attrs["NetworkSettings"]["Networks"].values()}


def _is_right(network: Any) -> bool:
    return (
        bool(network.attrs.get("Internal"))
        and _NO_HOST.items() <= (network.attrs.get("Options") or {}).items()
    )


def _labels(network: Any) -> dict[str, str]:
    return network.attrs.get("Labels") or {}


def _subnets_of(networks: Iterable[Any]) -> Iterator[IPv4Network]:
    for network in networks:
        for config in (network.attrs.get("IPAM") or {}).get("Config") or []:
            subnet = ip_network(config.get("Subnet") or "::/0", strict=False)
            if isinstance(subnet, IPv4Network):
                yield subnet
