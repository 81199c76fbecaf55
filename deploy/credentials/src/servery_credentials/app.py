"""Issue everything at the first start, then look once an hour whether something ends."""

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import structlog
from pydantic_settings import BaseSettings, SettingsConfigDict

from servery_common.service import ServiceContext, wait_any
from servery_credentials.installation import Installation
from servery_credentials.reloading import reload_nats, reload_postgres

log = structlog.get_logger(__name__)


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


async def main(context: ServiceContext) -> None:
    """Run until asked to stop."""
    settings = CredentialsSettings()
    installation = Installation(settings.directory)
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
