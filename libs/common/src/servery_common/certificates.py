"""A certificate authority: a key that signs, and the certificates it has signed.

An installation has two. One signs what its parts show each other; the other signs what replicas show to NATS, and is
trusted for nothing else. Needs the extra ``certificates``.
"""

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFETIME = timedelta(days=3650)
_CLOCKS_DIFFER = timedelta(minutes=10)


class CertificateAuthority:
    """Signs certificates."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate

    @classmethod
    def make(cls, name: str, now: datetime) -> "CertificateAuthority":
        """Make one, whose own certificate ends after ten years."""
        key = ec.generate_private_key(ec.SECP384R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            _builder(name, subject, key.public_key(), now, AUTHORITY_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_may_only_sign(), critical=True)
            .sign(key, hashes.SHA384())
        )
        return cls(key, certificate)

    @classmethod
    def load(cls, pem: bytes) -> "CertificateAuthority":
        """Return the one that ``private_pem`` was of. Raises ValueError."""
        key = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the key of a certificate authority is on an elliptic curve")
        return cls(key, x509.load_pem_x509_certificate(pem))

    @property
    def pem(self) -> bytes:
        """What others have to trust."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def private_pem(self) -> bytes:
        """Key and certificate: with it anybody can sign."""
        return _key_pem(self._key) + self.pem

    def issue(self, name: str, hosts: Sequence[str], now: datetime, lifetime: timedelta) -> bytes:
        """Return a new key with its certificate, in PEM. ``hosts``: a server's names or addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        return _key_pem(key) + self._sign(name, hosts, key.public_key(), now, lifetime)

    def renew(self, name: str, certificate: bytes, now: datetime, lifetime: timedelta) -> bytes:
        """Return another certificate of a client, for the same key. Raises ValueError when the old one, which may have
        ended, is not its own or not of this authority."""
        old = x509.load_pem_x509_certificate(certificate)
        if not self.has_signed(old):
            raise ValueError("the certificate is of another authority")
        if old.subject.rfc4514_string() != f"CN={name}":
            raise ValueError("the certificate is of somebody else")
        key = old.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError("the key of a certificate is on an elliptic curve")
        return self._sign(name, (), key, now, lifetime)

    def has_signed(self, certificate: x509.Certificate) -> bool:
        """Whether it is one of this authority's."""
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except (InvalidSignature, ValueError, TypeError):
            return False
        return True

    def _sign(
        self,
        name: str,
        hosts: Sequence[str],
        key: ec.EllipticCurvePublicKey,
        now: datetime,
        lifetime: timedelta,
    ) -> bytes:
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if hosts:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        names = [_general_name(host) for host in hosts or (name,)]
        certificate = (
            _builder(name, self._certificate.subject, key, now, lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)


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


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _may_only_sign() -> x509.KeyUsage:
    return x509.KeyUsage(
        key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
