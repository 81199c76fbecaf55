"""The installation's own certificate authority, and a certificate for each of its parts.

A certificate and its key are in one file, ``tls.pem``, so that they are replaced together. Clients read it at each
handshake; NATS and Postgres are told (``reloading``). The authority's key never leaves its own directory.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from servery_credentials.files import write

AUTHORITY_LIFETIME = timedelta(days=3650)
LIFETIME = timedelta(days=30)
RENEW_BEFORE = timedelta(days=10)
"""A certificate with less left is replaced: an installation may be down for so long."""
_CLOCKS_DIFFER = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Identity:
    """A part of the installation."""

    name: str
    """Subject of its certificate."""
    hosts: tuple[str, ...] = ()
    """Names it is reached by, if others connect to it."""
    owner: int | None = None
    """User id that reads its files."""


class CertificateAuthority:
    """Signs certificates. Made by ``open_authority``."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate

    @property
    def pem(self) -> bytes:
        """What others have to trust."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def sign(self, identity: Identity, now: datetime) -> bytes:
        """Return a new key with its certificate, in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if identity.hosts:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        names = [x509.DNSName(host) for host in identity.hosts or (identity.name,)]
        builder = (
            _builder(identity.name, self._certificate.subject, key.public_key(), now, LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        return _key_pem(key) + certificate.public_bytes(serialization.Encoding.PEM)

    def has_signed(self, certificate: x509.Certificate) -> bool:
        """Whether it is one of this authority's."""
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except (InvalidSignature, ValueError, TypeError):
            return False
        return True


def open_authority(directory: Path, now: datetime) -> CertificateAuthority:
    """Return the authority kept in ``directory``; makes it at the first call."""
    file = directory / "ca.pem"
    if not file.exists():
        key = ec.generate_private_key(ec.SECP384R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Servery")])
        certificate = (
            _builder("Servery", name, key.public_key(), now, AUTHORITY_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_may_only_sign(), critical=True)
            .sign(key, hashes.SHA384())
        )
        write(file, _key_pem(key) + certificate.public_bytes(serialization.Encoding.PEM))
    content = file.read_bytes()
    key = serialization.load_pem_private_key(content, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return CertificateAuthority(key, x509.load_pem_x509_certificate(content))


def keep_certificate(
    authority: CertificateAuthority, directory: Path, identity: Identity, now: datetime
) -> bool:
    """See that ``directory`` has ``tls.pem`` that is good for a while, and ``ca.crt``; True when one was replaced."""
    changed = False
    trusted = directory / "ca.crt"
    if not trusted.exists() or trusted.read_bytes() != authority.pem:
        write(trusted, authority.pem, mode=0o444, owner=identity.owner)
        changed = True
    file = directory / "tls.pem"
    if why_renewed(authority, file, identity, now) is not None:
        write(file, authority.sign(identity, now), owner=identity.owner)
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
    if certificate.not_valid_after_utc - now < RENEW_BEFORE:
        return f"it ends at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if not authority.has_signed(certificate):
        return "another authority has signed it"
    if not set(identity.hosts) <= _hosts_of(certificate):
        return "it lacks names the part is reached by"
    return None


def _hosts_of(certificate: x509.Certificate) -> set[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(names.get_values_for_type(x509.DNSName))


def _builder(
    subject: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + lifetime)
    )


def _may_only_sign() -> x509.KeyUsage:
    return x509.KeyUsage(
        key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
