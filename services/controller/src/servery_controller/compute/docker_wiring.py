"""Puts the Docker backend together."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from servery_common.contracts import subjects
from servery_common.contracts.replicas import RenewCredentials
from servery_common.docker_engine import Engine
from servery_common.messaging.port import Bus
from servery_controller.compute.container_spec import Access
from servery_controller.compute.containers import Containers
from servery_controller.compute.docker_backend import DockerBackend
from servery_controller.compute.docker_settings import DockerSettings
from servery_controller.compute.replica_credentials import CredentialRenewals, ReplicaCredentials
from servery_controller.compute.replica_networks import ReplicaNetworks
from servery_controller.compute.worker_reports import WorkerReports


def docker_backend(
    bus: Bus, settle_seconds: float, settings: DockerSettings, credentials: ReplicaCredentials | None
) -> DockerBackend:
    """Return a backend on the engine that the environment names."""
    networks = ReplicaNetworks(settings.installation, settings.nats_container, settings.subnets)

    def access(replica_id: str) -> Access:
        if credentials is None:
            return Access(settings.nats_url)
        return credentials.issue(replica_id, settings.nats_url)

    return DockerBackend(
        Engine("controller"),
        Containers(settings.installation, networks, settings.replica_cpus),
        networks,
        WorkerReports(bus, settle_seconds),
        access,
        capacity_slots=settings.capacity_slots,
        memory_overcommit=settings.memory_overcommit,
    )


def replica_credentials(settings: DockerSettings) -> ReplicaCredentials | None:
    """Return what makes replicas' credentials; None where NATS asks for none."""
    if settings.credentials is None:
        return None
    lifetime = timedelta(seconds=settings.credentials_seconds)
    return ReplicaCredentials(settings.credentials, lifetime, lambda: datetime.now(UTC))


async def serve_renewals(
    bus: Bus, credentials: ReplicaCredentials | None, runs: Callable[[str], bool]
) -> None:
    """Renew the credentials of replicas that run from now on, where they have any."""
    if credentials is None:
        return
    await bus.serve(
        subjects.ALL_CREDENTIAL_RENEWALS,
        RenewCredentials,
        CredentialRenewals(credentials, runs).handle,
        queue=subjects.CONTROLLER_QUEUE,
        sender=lambda asked: asked.replica_id,
    )
