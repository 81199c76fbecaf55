"""A certificate for each part of the installation, of its own authority.

A certificate and its key are in one file, ``tls.pem``, so that they are replaced together. Clients read it at each
handshake; NATS is told (``reloading``). The authority's key never leaves its own directory.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from servery_common.certificates import CertificateAuthority
from servery_credentials.files import write

LIFETIME = timedelta(days=30)
RENEW_BEFORE = timedelta(days=10)
"""A certificate with less left is replaced: an installation may be down for so long."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A part of the installation."""

    name: str
    """Subject of its certificate."""
    hosts: tuple[str, ...] = ()
    """Names or addresses it is reached by, if others connect to it."""
    owner: int | None = None
    """User id that reads its files."""
    lifetime: timedelta = LIFETIME
    renew_before: timedelta = RENEW_BEFORE


def open_authority(
    file: Path, now: datetime, *, name: str = "Servery", owner: int | None = None
) -> CertificateAuthority:
    """Return the authority kept in ``file``; makes it at the first call. ``owner`` is who else may sign with it."""
    if not file.exists():
        write(file, CertificateAuthority.make(name, now).private_pem, owner=owner)
    return CertificateAuthority.load(file.read_bytes())


def keep_certificate(
    authority: CertificateAuthority,
    directory: Path,
    identity: Identity,
    now: datetime,
    *,
    also_trusted: bytes = b"",
) -> bool:
    """See that ``directory`` has ``tls.pem`` that is good for a while, and ``ca.crt``; True when one was replaced.

    ``also_trusted`` are certificates of other authorities whose clients it lets in.
    """
    changed = False
    trusted, content = directory / "ca.crt", authority.pem + also_trusted
    if not trusted.exists() or trusted.read_bytes() != content:
        write(trusted, content, mode=0o444, owner=identity.owner)
        changed = True
    file = directory / "tls.pem"
    if why_renewed(authority, file, identity, now) is not None:
        issued = authority.issue(identity.name, identity.hosts, now, identity.lifetime)
        write(file, issued, owner=identity.owner)
        changed = True
    return changed


def why_renewed(authority: CertificateAuthority, file: Path, identity: Identity, now: datetime) -> str | None:
    """Return why a certificate has to be replaced, for the log; None when it has not."""
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except FileNotFoundError:
        return "there is none"
    except ValueError:
        return "it cannot be read"
    if certificate.not_valid_after_utc - now < identity.renew_before:
        return f"it ends at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if not authority.has_signed(certificate):
        return "another authority has signed it"
    if not set(identity.hosts) <= _hosts_of(certificate):
        return "it lacks names the part is reached by"
    return None


def _hosts_of(certificate: x509.Certificate) -> set[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(names.get_values_for_type(x509.DNSName)) | {
        str(address) for address in names.get_values_for_type(x509.IPAddress)
    }
