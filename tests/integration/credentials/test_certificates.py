"""Certificates that are kept good."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from servery_credentials.certificates import (
    LIFETIME,
    RENEW_BEFORE,
    Identity,
    keep_certificate,
    open_authority,
    why_renewed,
)

from servery_common.certificates import CertificateAuthority

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NATS = Identity("nats", hosts=("nats", "localhost"))


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return open_authority(tmp_path / "ca" / "ca.pem", NOW)


def serial(directory: Path) -> int:
    return x509.load_pem_x509_certificate((directory / "tls.pem").read_bytes()).serial_number


def test_what_is_good_is_left_alone(authority: CertificateAuthority, tmp_path: Path) -> None:
    assert keep_certificate(authority, tmp_path / "nats", NATS, NOW)
    before = serial(tmp_path / "nats")
    assert not keep_certificate(authority, tmp_path / "nats", NATS, NOW + LIFETIME - RENEW_BEFORE)
    assert not keep_certificate(open_authority(tmp_path / "ca" / "ca.pem", NOW), tmp_path / "nats", NATS, NOW)
    assert serial(tmp_path / "nats") == before
    assert (tmp_path / "nats" / "tls.pem").stat().st_mode & 0o777 == 0o400
    assert (tmp_path / "ca" / "ca.pem").stat().st_mode & 0o777 == 0o400


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda file: file.unlink(), "there is none"),
        (lambda file: (file.chmod(0o600), file.write_text("nonsense")), "it cannot be read"),
        (lambda file: None, "it ends at 2026-03-31 00:00 UTC"),
    ],
)
def test_what_is_not_good_any_more_is_replaced(
    authority: CertificateAuthority, tmp_path: Path, spoil, reason: str
) -> None:
    directory = tmp_path / "nats"
    keep_certificate(authority, directory, NATS, NOW)
    spoil(directory / "tls.pem")
    late = NOW + LIFETIME - RENEW_BEFORE + timedelta(seconds=1)
    assert why_renewed(authority, directory / "tls.pem", NATS, late) == reason
    assert keep_certificate(authority, directory, NATS, late)
    assert why_renewed(authority, directory / "tls.pem", NATS, late) is None


def test_a_part_that_is_reached_by_another_name_gets_another_certificate(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    keep_certificate(authority, tmp_path, NATS, NOW)
    more = Identity("nats", hosts=("nats", "localhost", "nats.example"))
    assert why_renewed(authority, tmp_path / "tls.pem", more, NOW) == "it lacks names the part is reached by"
    assert keep_certificate(authority, tmp_path, more, NOW)
    assert not keep_certificate(authority, tmp_path, NATS, NOW)


def test_a_lost_authority_is_followed_by_new_certificates_for_all(tmp_path: Path) -> None:
    keep_certificate(open_authority(tmp_path / "first.pem", NOW), tmp_path / "nats", NATS, NOW)
    second = open_authority(tmp_path / "second.pem", NOW)
    assert why_renewed(second, tmp_path / "nats" / "tls.pem", NATS, NOW) == "another authority has signed it"
    assert keep_certificate(second, tmp_path / "nats", NATS, NOW)
    assert (tmp_path / "nats" / "ca.crt").read_bytes() == second.pem


def test_what_is_written_is_what_python_takes_for_a_certificate_and_its_key(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    keep_certificate(authority, tmp_path, NATS, NOW)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.pem")
    context.load_verify_locations(tmp_path / "ca.crt")
    assert [x509.load_pem_x509_certificate(authority.pem).serial_number] == [
        int(known["serialNumber"], 16) for known in context.get_ca_certs()
    ]
