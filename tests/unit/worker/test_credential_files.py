from datetime import UTC, datetime
from pathlib import Path

import pytest

from servery_common.nats_credentials import Authority, make_user
from servery_common.settings import NatsSettings
from servery_worker.credential_files import CredentialFiles

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_a_worker_without_credentials_has_nothing_that_ends() -> None:
    files = CredentialFiles(NatsSettings())
    assert files.lifetime() is None
    assert files.certificate() == ""


def test_credentials_of_a_service_have_no_end(tmp_path: Path) -> None:
    file = tmp_path / "nats.creds"
    file.write_text(make_user(Authority.make().account, "worker", None, NOW))
    assert CredentialFiles(NatsSettings(credentials=file)).lifetime() is None


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    file = tmp_path / "nats.creds"
    file.write_text("nonsense")
    with pytest.raises(ValueError, match=r"not a \.creds file"):
        CredentialFiles(NatsSettings(credentials=file)).lifetime()


def test_a_certificate_and_its_key_may_be_two_files(tmp_path: Path) -> None:
    creds, cert, key = (tmp_path / name for name in ("nats.creds", "tls.crt", "tls.key"))
    cert.write_text("-----BEGIN CERTIFICATE-----\nold\n")
    key.write_text("key")
    files = CredentialFiles(NatsSettings(credentials=creds, tls_cert=cert, tls_key=key))
    files.replace("token", "seed", "-----BEGIN CERTIFICATE-----\nnew\n")
    assert cert.read_text() == "-----BEGIN CERTIFICATE-----\nnew\n"
    assert key.read_text() == "key"
    assert "token" in creds.read_text()
    assert creds.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in tmp_path.iterdir()) == ["nats.creds", "tls.crt", "tls.key"]
