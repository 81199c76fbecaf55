"""Issue everything at the first start, then look once an hour whether something ends."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import structlog
from pydantic_settings import BaseSettings, SettingsConfigDict

from servery_common.service import ServiceContext, wait_any
from servery_credentials.installation import Installation
from servery_credentials.reloading import reload_nats

log = structlog.get_logger(__name__)


class CredentialsSettings(BaseSettings):
    """Each can be set as ``SERVERY_CREDENTIALS_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="SERVERY_CREDENTIALS_")

    directory: Path = Path("/credentials")
    """Holds a directory for each part of the installation."""
    nats_url: str = "nats://nats:4222"
    """Is told to read its certificate again."""
    check_seconds: float = 3600.0
    """How often to look."""


async def main(context: ServiceContext) -> None:
    """Run until asked to stop."""
    settings = CredentialsSettings()
    installation = Installation(settings.directory)
    untold = False
    while not context.stopping.is_set():
        replaced = await asyncio.to_thread(installation.keep, datetime.now(UTC))
        for name in sorted(replaced):
            log.info("certificate_issued", part=name)
        if not context.is_ready:
            context.ready()  # servers that start from now on read what was issued
        else:
            untold = untold or "nats" in replaced
        if untold:
            own = settings.directory / "ca"
            untold = not await reload_nats(
                settings.nats_url, own / "nats_system.creds", own / "own" / "ca.crt", own / "own" / "tls.pem"
            )
        await wait_any(
            context.stopping, min(60.0, settings.check_seconds) if untold else settings.check_seconds
        )
