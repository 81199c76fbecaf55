"""Issue everything at the first start, then look once an hour whether something ends."""

import asyncio
import ipaddress
import re
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import structlog
from pydantic import field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from servery_common.service import ServiceContext, wait_any
from servery_credentials.installation import Installation
from servery_credentials.reloading import reload_nats, reload_postgres

log = structlog.get_logger(__name__)

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


class CredentialsSettings(BaseSettings):
    """Each can be set as ``SERVERY_CREDENTIALS_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="SERVERY_CREDENTIALS_")

    directory: Path = Path("/credentials")
    """Holds a directory for each part of the installation."""
    nats_url: str = "nats://nats:4222"
    """Is told to read its certificate again."""
    postgres_tls: Literal["on", "off"] = "on"
    """Whether Postgres is told, too. It has no use for a certificate where somebody chose to do without TLS."""
    check_seconds: float = 3600.0
    """How often to look."""
    compute_plane_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Names or addresses, with commas between, at which the control plane reaches a compute plane in another network
    (docs/leaf-nodes.md). Empty: there is none."""

    @field_validator("compute_plane_hosts", mode="before")
    @classmethod
    def _are_hosts(cls, written: object) -> object:
        return hosts(written) if isinstance(written, str) else written


def hosts(written: str) -> tuple[str, ...]:
    """Read ``gpu.example,10.0.0.7``. Raises ValueError that says what would be right."""
    found = tuple(filter(None, (each.strip() for each in written.split(","))))
    for host in found:
        if not _NAME.fullmatch(host) and not _is_address(host):
            raise ValueError(
                f"'{host}' is neither a name nor an address: write it as gpu.example or 10.0.0.7, without"
                " scheme and port"
            )
    return found


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def main(context: ServiceContext) -> None:
    """Run until asked to stop."""
    settings = CredentialsSettings()
    installation = Installation(settings.directory, settings.compute_plane_hosts)
    servers = {"nats"} | ({"postgres"} if settings.postgres_tls == "on" else set())
    # Servers that start from now on read what was issued. Those that ran on while this was away may not have been told.
    untold = set(servers)
    while not context.stopping.is_set():
        replaced = await asyncio.to_thread(installation.keep, datetime.now(UTC))
        for name in sorted(replaced):
            log.info("certificate_issued", part=name)
        if context.is_ready:
            untold = await _tell(settings, installation, untold | (replaced & servers))
        else:
            context.ready()  # what they wait for at the first start: so they are told at the next look
        await wait_any(
            context.stopping, min(60.0, settings.check_seconds) if untold else settings.check_seconds
        )


async def _tell(
    settings: CredentialsSettings, installation: Installation, servers: Collection[str]
) -> set[str]:
    """Have servers read their certificates again; return those that could not be told."""
    authority = installation.root / "ca"
    own = authority / "own"
    untold: set[str] = set()
    if "nats" in servers and not await reload_nats(
        settings.nats_url, authority / "nats_system.creds", own / "ca.crt", own / "tls.pem"
    ):
        untold.add("nats")
    if "postgres" in servers and not await reload_postgres(
        installation.passwords().superuser_url(), own / "ca.crt", installation.root / "postgres" / "tls.pem"
    ):
        untold.add("postgres")
    return untold
