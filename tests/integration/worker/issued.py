"""What an installation in containers issues, as files, for a server of NATS and whoever connects to it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from servery_credentials.certificates import Identity, keep_certificate, open_authority
from servery_credentials.installation import REPLICAS_AUTHORITY
from servery_credentials.nats_accounts import (
    keep_account_seed,
    keep_credentials,
    keep_server_config,
    open_nats_authority,
)

from servery_common.contracts.permissions import SERVICES, inbox_prefix
from servery_common.settings import NatsSettings
from servery_controller.compute.replica_credentials import ReplicaCredentials


class Issued:
    """A directory for each part below ``root``, the server's among them. ``url`` is the server's, once it runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = ""
        now = datetime.now(UTC)
        authority = open_authority(root / "ca" / "ca.pem", now)
        replicas = open_authority(root / "controller" / REPLICAS_AUTHORITY, now, name="Servery replicas")
        nats = open_nats_authority(root / "ca")
        server = Identity("nats", hosts=("nats", "localhost"))
        keep_certificate(authority, root / "nats", server, now, also_trusted=replicas.pem)
        keep_server_config(nats, root / "nats", None, now)
        for name in ("controller", "gateway"):
            keep_certificate(authority, root / name, Identity(name), now)
            keep_credentials(nats.account, root / name, name, SERVICES[name], None, now)
        keep_account_seed(nats, root / "controller", None)

    def settings(self, name: str) -> NatsSettings:
        """How a part reaches the server, with the files in its directory."""
        own = self.root / name
        return NatsSettings(
            url=self.url,
            credentials=own / "nats.creds",
            inbox_prefix=inbox_prefix(name),
            tls_ca=own / "ca.crt",
            tls_cert=own / "tls.pem",
            tls_key=own / "tls.pem",
        )

    def credentials(self, lifetime: timedelta) -> ReplicaCredentials:
        """What makes replicas' credentials that are good for so long."""
        return ReplicaCredentials(self.root / "controller", lifetime, lambda: datetime.now(UTC))

    def issue(self, replica_id: str, lifetime: timedelta) -> NatsSettings:
        """Give a replica its first ones, as files, as its container's entry point does."""
        access = self.credentials(lifetime).issue(replica_id, self.url)
        own = self.root / replica_id
        own.mkdir()
        (own / "nats.creds").write_text(access.credentials)
        (own / "ca.crt").write_text(access.ca)
        (own / "tls.pem").write_text(access.certificate)
        return self.settings(replica_id)
