"""Settings of the Docker backend (``SERVERY_CONTROLLER_DOCKER_…``)."""

from ipaddress import IPv4Network
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from servery_controller.compute.subnets import PREFIX_LENGTH


class DockerSettings(BaseSettings):
    """How replicas are made as containers. The engine is found as Docker's own tools find it (``DOCKER_HOST``)."""

    model_config = SettingsConfigDict(env_prefix="SERVERY_CONTROLLER_DOCKER_")

    installation: str = Field(default="servery", pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$")
    """Label and first part of the name of everything this installation makes; in Compose the project's name."""
    credentials: Path | None = None
    """Directory with ``nats_account.seed``, ``replicas_ca.pem`` and ``ca.crt``, of which replicas get what lets them
    into NATS. None: it asks for nothing."""
    credentials_seconds: float = Field(default=24 * 3600.0, ge=60)
    """How long what a replica gets is good. It asks for the next at half of it; so the controller, or NATS, may be away
    for almost half of it before replicas end. Not shorter than such an outage may last."""
    nats_url: str = "nats://nats:4222"
    """NATS as replicas reach it, in their network."""
    nats_container: str | None = None
    """Name of the container NATS runs in; by default the service ``nats`` of the Compose project."""
    subnets: IPv4Network = IPv4Network("10.213.0.0/16")
    """Where replicas' networks are taken from, each of eight addresses: 8,192 replicas at most."""
    replica_cpus: float = Field(default=0.0, ge=0)
    """Processors one replica may use at most. 0: all, shared with the others."""
    capacity_slots: int | None = Field(default=None, ge=1)
    """Slots of all replicas together; by default 32 for each processor of the engine's machine."""
    memory_overcommit: float | None = Field(default=None, gt=0)
    """How many times the memory of the engine's machine the limits of all replicas together may be. 1: each can use its
    whole limit, and no other is placed. None: limits promise nothing, and only slots are counted."""

    @field_validator("subnets")
    @classmethod
    def _has_room(cls, subnets: IPv4Network) -> IPv4Network:
        if subnets.prefixlen > PREFIX_LENGTH:
            raise ValueError("must have room for networks of eight addresses, as 10.213.0.0/16 has")
        return subnets
