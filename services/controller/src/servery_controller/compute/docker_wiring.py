"""Puts the Docker backend together."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from servery_common.contracts.permissions import of_replica
from servery_common.docker_engine import Engine
from servery_common.messaging.port import Bus
from servery_common.nats_credentials import KeyPair, make_user
from servery_controller.compute.container_spec import Access
from servery_controller.compute.containers import Containers
from servery_controller.compute.docker_backend import DockerBackend
from servery_controller.compute.docker_settings import DockerSettings
from servery_controller.compute.worker_reports import WorkerReports
from servery_controller.compute.workspace_networks import WorkspaceNetworks

CREDENTIALS_LIFETIME = timedelta(days=30)
"""Of a replica's. One that lives longer loses its connection with them, and is replaced as one that fell silent."""


def docker_backend(bus: Bus, settle_seconds: float, settings: DockerSettings) -> DockerBackend:
    """Return a backend on the engine that the environment names."""
    networks = WorkspaceNetworks(settings.installation, settings.nats_container, settings.subnets)
    return DockerBackend(
        Engine("controller"),
        Containers(settings.installation, networks, settings.replica_cpus),
        networks,
        WorkerReports(bus, settle_seconds),
        access_to(settings.nats_url, settings.credentials, lambda: datetime.now(UTC)),
        capacity_slots=settings.capacity_slots,
        memory_overcommit=settings.memory_overcommit,
    )


def access_to(
    nats_url: str, credentials: Path | None, now: Callable[[], datetime]
) -> Callable[[str], Access]:
    """Return what makes a replica's way into NATS. Files are read each time: they are replaced before they end."""

    def access(replica_id: str) -> Access:
        if credentials is None:
            return Access(nats_url)
        account = KeyPair.of((credentials / "nats_account.seed").read_text().strip())
        return Access(
            nats_url,
            make_user(account, replica_id, of_replica(replica_id), now(), CREDENTIALS_LIFETIME),
            (credentials / "replica" / "ca.crt").read_text(),
            (credentials / "replica" / "tls.pem").read_text(),
        )

    return access
