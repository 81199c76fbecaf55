"""Settings of every service, read from the environment.

The names are the same in the embedded mode, in Compose and on Kubernetes.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class NatsSettings(BaseSettings):
    """How to reach NATS (``SERVERY_NATS_…``)."""

    model_config = SettingsConfigDict(env_prefix="SERVERY_NATS_")

    url: str = Field(default="nats://127.0.0.1:4222", repr=False)
    """One address, or several of one cluster with commas between. Not shown: it may hold a password."""
    user: str | None = None
    password: SecretStr | None = None
    credentials: Path | None = None
    """A ``.creds`` file: who this is, and what it may do. Read at each connect, so it may be replaced at any time."""
    inbox_prefix: str = "_INBOX"
    """What answers come to. Credentials allow one's own alone (``contracts.permissions.inbox_prefix``)."""
    tls_ca: Path | None = None
    """The authority that has signed the server's certificate. With it every connection is encrypted."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    """The own certificate, shown to the server. Read at each connect, too."""
    monitoring_url: str | None = None
    """The server's monitoring port (``http://host:8222``): the controller shows what is told there. None: nothing."""


class PostgresSettings(BaseSettings):
    """How to reach Postgres (``SERVERY_POSTGRES_…``). Only the controller and the builder have it."""

    model_config = SettingsConfigDict(env_prefix="SERVERY_POSTGRES_")

    url: str = Field(repr=False)
    """``postgresql://…``; a unix-socket address is fine. Not shown: it may hold a password."""
    tls: Literal["on", "off"] = "off"
    """``on``: every connection over the network is encrypted, and the server has to show a certificate for the name
    it is reached by, whatever the URL says. ``off``: as the URL says (``?sslmode=…``)."""
    tls_ca: Path | None = None
    """The authority that has signed the server's certificate. Read at each connect."""
    pool_size: int = 10
    """Connections of one process at most. The pools of all processes together must stay below Postgres'
    ``max_connections``."""

    @model_validator(mode="after")
    def _whom_to_trust(self) -> Self:
        if self.tls == "on" and self.tls_ca is None:
            raise ValueError(
                "SERVERY_POSTGRES_TLS is on: name the file of the authority that signed Postgres' certificate in "
                "SERVERY_POSTGRES_TLS_CA"
            )
        return self


class LogSettings(BaseSettings):
    """What the log looks like (``SERVERY_LOG_…``)."""

    model_config = SettingsConfigDict(env_prefix="SERVERY_LOG_")

    format: Literal["json", "console"] = "json"
    """``json``: one object per line, for machines; ``console``: for people."""
    level: Literal["debug", "info", "warning", "error", "critical"] = "info"
