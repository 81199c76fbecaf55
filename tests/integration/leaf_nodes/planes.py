"""A control plane's NATS and a compute plane's, as the files of ``deploy`` have them, with what was issued for both."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

from servery_credentials import compute_plane
from servery_credentials.certificates import Identity, keep_certificate, open_authority
from servery_credentials.installation import REPLICAS_AUTHORITY
from servery_credentials.nats_accounts import keep_credentials, keep_server_config, open_nats_authority
from tests.infrastructure import NatsServer, free_port

from servery_common.contracts.permissions import SERVICES, Permissions, inbox_prefix
from servery_common.nats_credentials import KeyPair, make_user
from servery_common.settings import NatsSettings

ROOT = Path(__file__).parents[3]
ISSUED = "/run/servery/credentials"


class Issued:
    """What the credentials service issues, but for the owners of files: a directory for each part."""

    def __init__(self, root: Path) -> None:
        self.root = root
        now = datetime.now(UTC)
        self.certificates = open_authority(root / "ca" / "ca.pem", now)
        replicas = open_authority(root / "controller" / REPLICAS_AUTHORITY, now, name="Servery replicas")
        self.nats = open_nats_authority(root / "ca")
        self.plane = compute_plane.open_account(root / "ca")
        keep_server_config(self.nats, root / "nats", None, now, self.plane)
        compute_plane.keep_link(self.plane, root / "nats" / "compute-plane", None, now)
        there = compute_plane.server(["127.0.0.1"], None)
        compute_plane.keep_server(
            self.certificates,
            self.nats,
            self.plane,
            root / "compute-plane",
            there,
            now,
            also_trusted=replicas.pem,
        )
        made = root / "controller" / "compute-plane"
        compute_plane.keep_replicas(self.plane, made, self.certificates, replicas, None)
        here = Identity("nats", hosts=("nats", "127.0.0.1"))
        keep_certificate(self.certificates, root / "nats", here, now, also_trusted=replicas.pem)
        for name, rights in SERVICES.items():
            keep_certificate(self.certificates, root / name, Identity(name), now)
            keep_credentials(self.nats.account, root / name, name, rights, None, now)

    def of_service(self, name: str, url: str) -> NatsSettings:
        """How a service of the control plane connects."""
        own = self.root / name
        return _settings(url, name, own / "nats.creds", own)

    def of_anyone(
        self, name: str, url: str, account: KeyPair, rights: Permissions | None = None
    ) -> NatsSettings:
        """How somebody with certain rights of an account would; all it may do, without."""
        own = self.root / "anyone"
        keep_certificate(self.certificates, own, Identity("anyone"), datetime.now(UTC))
        file = own / f"{name}.creds"
        file.write_text(make_user(account, name, rights, datetime.now(UTC)))
        return _settings(url, name, file, own)


def _settings(url: str, name: str, credentials: Path, tls: Path) -> NatsSettings:
    return NatsSettings(
        url=url,
        credentials=credentials,
        inbox_prefix=inbox_prefix(name),
        tls_ca=tls / "ca.crt",
        tls_cert=tls / "tls.pem",
        tls_key=tls / "tls.pem",
    )


class PlaneServer(NatsServer):
    """One that runs a configuration as it is shipped, but for paths and ports: ``root`` takes the place of /."""

    def __init__(
        self, root: Path, credentials: Path, configurations: dict[str, Path], **replaced: str
    ) -> None:
        """``configurations``: where each file lies below ``root``; the first is the one it is started with."""
        root.mkdir()
        super().__init__(root)
        issued = root / ISSUED.removeprefix("/")
        issued.parent.mkdir(parents=True)
        shutil.copytree(credentials, issued)
        changes = {
            ISSUED: str(issued),
            "store_dir: /data": f"store_dir: {root}/data",
            "0.0.0.0:4222": f"127.0.0.1:{self.port}",
            "127.0.0.1:8222": f"127.0.0.1:{free_port()}",
            **replaced,
        }
        for place, file in configurations.items():
            text = file.read_text()
            for shipped, here in changes.items():
                # Paths of includes are relative.
                text = (
                    text.replace(f"../..{ISSUED}", "@").replace(shipped, here).replace("@", f"../..{ISSUED}")
                )
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / place).write_text(text)
        self.issued = issued
        self._config = root / next(iter(configurations))


def control_plane(root: Path, issued: Issued, link_port: int) -> PlaneServer:
    """Return the control plane's server, which connects to the compute plane's at ``link_port``."""
    files = {
        "etc/servery/control-plane-nats.conf": ROOT / "deploy/compute-plane/control-plane-nats.conf",
        "etc/servery/nats.conf": ROOT / "deploy/nats/nats.conf",
    }
    url = {"$SERVERY_COMPUTE_PLANE_URL": f'"tls://127.0.0.1:{link_port}"'}
    return PlaneServer(root, issued.root / "nats", files, **url)


def compute_plane_server(root: Path, issued: Issued, leaf_port: int) -> PlaneServer:
    """Return the compute plane's server."""
    files = {f"{ISSUED.removeprefix('/')}/nats.conf": ROOT / "deploy/compute-plane/nats.conf"}
    listens = {"0.0.0.0:7422": f"127.0.0.1:{leaf_port}"}
    return PlaneServer(root, issued.root / "compute-plane", files, **listens)
