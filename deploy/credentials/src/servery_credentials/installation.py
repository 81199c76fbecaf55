"""What an installation in containers is issued: for each part a directory that nobody else sees.

Everything is made once and kept; certificates are renewed. ``env`` in a part's directory holds files named after
environment variables, which its entry point reads.
"""

import base64
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from servery_common.certificates import CertificateAuthority
from servery_common.contracts.permissions import SERVICES
from servery_common.nats_credentials import Authority
from servery_credentials import compute_plane, nats_accounts
from servery_credentials.certificates import Identity, keep_certificate, open_authority
from servery_credentials.files import keep, write

SERVERY_USER = 10001
POSTGRES_USER = 999
GRAFANA_USER = 472
"""User ids of the images."""

PARTS = (
    Identity("nats", hosts=("nats", "localhost"), owner=0),
    Identity("postgres", hosts=("postgres", "localhost"), owner=POSTGRES_USER),
    *(
        Identity(name, owner=SERVERY_USER)
        for name in ("gateway", "controller", "builder", "scaler", "mlflow")
    ),
    Identity("grafana", owner=GRAFANA_USER),
)
REPLICAS_AUTHORITY = "replicas_ca.pem"
"""In the controller's directory: signs what replicas show to NATS, which alone trusts it."""
_POSTGRES = "postgres:5432"


@dataclass(frozen=True, slots=True)
class Passwords:
    """Drawn at the first start."""

    admin_token: str
    """Of the first administrator."""
    encryption_key: str
    """What is secret in Postgres is encrypted with it."""
    postgres: str
    servery: str
    mlflow: str
    """Users of Postgres."""
    grafana: str
    """Of Grafana's user ``admin``."""

    @classmethod
    def draw(cls) -> "Passwords":
        """Return new ones."""
        return cls(
            admin_token=f"dapi{secrets.token_hex(16)}",
            encryption_key=base64.b64encode(secrets.token_bytes(32)).decode(),
            postgres=secrets.token_hex(20),
            servery=secrets.token_hex(20),
            mlflow=secrets.token_hex(20),
            grafana=secrets.token_urlsafe(12),
        )

    def variables(self) -> Mapping[str, Mapping[str, str]]:
        """Return the environment variables of each part."""
        database = f"postgresql://servery:{self.servery}@{_POSTGRES}/servery"
        return {
            "postgres": {"POSTGRES_PASSWORD": self.postgres},
            "controller": {
                "SERVERY_ADMIN_TOKEN": self.admin_token,
                "SERVERY_ENCRYPTION_KEY": self.encryption_key,
                "SERVERY_POSTGRES_URL": database,
            },
            "builder": {"SERVERY_POSTGRES_URL": database},
            "mlflow": {"MLFLOW_BACKEND_STORE_URI": f"postgresql://mlflow:{self.mlflow}@{_POSTGRES}/mlflow"},
            "grafana": {"GF_SECURITY_ADMIN_PASSWORD": self.grafana},
        }

    def superuser_url(self) -> str:
        """Return how to reach Postgres as the one who may have it read its files again."""
        return f"postgresql://postgres:{self.postgres}@{_POSTGRES}/postgres"

    def first_sql(self) -> str:
        """Return what Postgres runs when it makes its cluster: two users, each with a database of its own."""
        return (
            "".join(
                f"CREATE ROLE {name} LOGIN PASSWORD '{password}';\n"
                f"CREATE DATABASE {name} OWNER {name};\n"
                f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC;\n"
                for name, password in (("servery", self.servery), ("mlflow", self.mlflow))
            )
            + "GRANT pg_monitor TO servery;\n"
        )


class Installation:
    """The credentials below ``root``. Its own, the authority's keys among them, are in ``root/ca``."""

    def __init__(self, root: Path, compute_plane_hosts: Sequence[str] = ()) -> None:
        """``compute_plane_hosts``: how the control plane reaches a compute plane in another network."""
        self.root = root
        self._compute_plane_hosts = tuple(compute_plane_hosts)

    def keep(self, now: datetime) -> set[str]:
        """Make what is missing and renew what ends; return the parts whose certificate was replaced."""
        passwords = self.passwords()
        authority = open_authority(self.root / "ca" / "ca.pem", now)
        replicas = open_authority(
            self.root / "controller" / REPLICAS_AUTHORITY, now, name="Servery replicas", owner=SERVERY_USER
        )
        clients = {"nats": replicas.pem}
        replaced = {
            part.name
            for part in PARTS
            if keep_certificate(
                authority, self.root / part.name, part, now, also_trusted=clients.get(part.name, b"")
            )
        }
        keep_certificate(authority, self.root / "ca" / "own", Identity("credentials"), now)
        owners = {part.name: part.owner for part in PARTS}
        for name, variables in passwords.variables().items():
            for variable, value in variables.items():
                keep(self.root / name / "env" / variable, value, owners[name])
        keep(self.root / "postgres-init" / "10-users.sql", passwords.first_sql(), POSTGRES_USER)
        nats = nats_accounts.open_nats_authority(self.root / "ca")
        if self._compute_plane_hosts and self._keep_compute_plane(
            authority, replicas, nats, owners["nats"], now
        ):
            replaced.add(compute_plane.NAME)
        self._keep_nats(nats, owners, now)
        return replaced

    def _keep_compute_plane(
        self,
        authority: CertificateAuthority,
        replicas: CertificateAuthority,
        nats: Authority,
        owner: int | None,
        now: datetime,
    ) -> bool:
        account = compute_plane.open_account(self.root / "ca")
        nats_accounts.keep_server_config(nats, self.root / "nats", owner, now, account)
        compute_plane.keep_link(account, self.root / "nats" / compute_plane.NAME, owner, now)
        made = self.root / "controller" / compute_plane.NAME
        compute_plane.keep_replicas(account, made, authority, replicas, SERVERY_USER)
        server = compute_plane.server(self._compute_plane_hosts, owner)
        return compute_plane.keep_server(
            authority,
            nats,
            account,
            self.root / compute_plane.NAME,
            server,
            now,
            also_trusted=replicas.pem,
        )

    def _keep_nats(self, nats: Authority, owners: Mapping[str, int | None], now: datetime) -> None:
        if not self._compute_plane_hosts:
            nats_accounts.keep_server_config(nats, self.root / "nats", owners["nats"], now)
        for name in SERVICES.keys() & owners.keys():
            nats_accounts.keep_credentials(
                nats.account, self.root / name, name, SERVICES[name], owners[name], now
            )
        nats_accounts.keep_account_seed(nats, self.root / "controller", owners["controller"])
        nats_accounts.keep_system_credentials(nats, self.root / "ca", now)

    def passwords(self) -> Passwords:
        """Return them; they are drawn at the first call."""
        file = self.root / "ca" / "passwords.json"
        if not file.exists():
            write(file, json.dumps(asdict(Passwords.draw())).encode())
        return Passwords(**json.loads(file.read_bytes()))
