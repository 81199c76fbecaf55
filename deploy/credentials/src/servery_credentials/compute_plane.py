"""What a compute plane in another network is issued (docs/leaf-nodes.md), and what connects to it.

Its server and its replicas have an account of their own, whose key signs nothing else. Its server's certificate is of
the installation's authority: it lets nobody into NATS without credentials, but has to stay out of the networks here.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import nkeys

from servery_common.certificates import CertificateAuthority
from servery_common.contracts.permissions import of_link
from servery_common.nats_credentials import Authority, KeyPair
from servery_credentials import nats_accounts
from servery_credentials.certificates import Identity, keep_certificate
from servery_credentials.files import keep, write

NAME = "compute-plane"
LIFETIME = timedelta(days=365)
RENEW_BEFORE = timedelta(days=90)
"""Of the server's certificate: somebody has to bring it there (deploy/compute-plane/up.sh)."""


def server(hosts: Sequence[str], owner: int | None) -> Identity:
    """Return the compute plane's server. ``hosts``: how the control plane reaches it; replicas know it as ``nats``."""
    return Identity(
        NAME, hosts=("nats", "localhost", *hosts), owner=owner, lifetime=LIFETIME, renew_before=RENEW_BEFORE
    )


def open_account(directory: Path) -> KeyPair:
    """Return the account of the compute plane, whose seed is kept in ``directory``; makes it at the first call."""
    file = directory / "nats_compute_plane.seed"
    if not file.exists():
        write(file, KeyPair.make(nkeys.PREFIX_BYTE_ACCOUNT).seed.encode())
    return KeyPair.of(file.read_text())


def keep_server(
    certificates: CertificateAuthority,
    nats: Authority,
    account: KeyPair,
    directory: Path,
    identity: Identity,
    now: datetime,
    *,
    also_trusted: bytes,
) -> bool:
    """See that ``directory`` has all that is brought to the server there; True when its certificate was replaced.

    ``also_trusted`` is the authority of what replicas show.
    """
    file = directory / "accounts.conf"
    if not file.exists():
        write(file, nats.compute_plane_config(account, now).encode(), owner=identity.owner)
    return keep_certificate(certificates, directory, identity, now, also_trusted=also_trusted)


def keep_link(account: KeyPair, directory: Path, owner: int | None, now: datetime) -> None:
    """See that ``directory`` has what the control plane's server connects with, as the account it connects for."""
    keep(directory / "account.conf", f"compute_plane_account: {account.public}\n", owner)
    nats_accounts.keep_credentials(account, directory, "link", of_link(), owner, now, connects_as="LEAFNODE")


def keep_replicas(
    account: KeyPair,
    directory: Path,
    certificates: CertificateAuthority,
    replicas: CertificateAuthority,
    owner: int | None,
) -> None:
    """See that whoever makes replicas there (the controller) can make what lets them in, and renew it."""
    keep(directory / "nats_account.seed", account.seed, owner)
    keep(directory / "replicas_ca.pem", replicas.private_pem.decode(), owner)
    keep(directory / "ca.crt", certificates.pem.decode(), owner)
