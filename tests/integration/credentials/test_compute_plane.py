"""What is issued for a compute plane in another network."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from pydantic import ValidationError
from servery_credentials import compute_plane
from servery_credentials.app import CredentialsSettings
from servery_credentials.certificates import keep_certificate, open_authority, why_renewed
from servery_credentials.installation import Installation
from servery_credentials.nats_accounts import keep_server_config, open_nats_authority

NOW = datetime(2026, 3, 1, tzinfo=UTC)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to users of images")


def hosts(written: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    monkeypatch.setenv("SERVERY_CREDENTIALS_COMPUTE_PLANE_HOSTS", written)
    return CredentialsSettings().compute_plane_hosts


def test_hosts_are_names_and_addresses_with_commas_between(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hosts("", monkeypatch) == ()
    assert hosts("gpu.example, 10.0.0.7,fd00::1", monkeypatch) == ("gpu.example", "10.0.0.7", "fd00::1")


@pytest.mark.parametrize("written", ["tls://gpu.example", "gpu.example:7422", "gpu example", "-"])
def test_what_is_no_host_is_refused_with_what_would_be_right(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ValidationError, match=r"write it as gpu\.example or 10\.0\.0\.7, without scheme and port"
    ):
        hosts(written, monkeypatch)


def test_a_server_reached_by_an_address_has_it_in_its_certificate(tmp_path: Path) -> None:
    authority = open_authority(tmp_path / "ca" / "ca.pem", NOW)
    server = compute_plane.server(["gpu.example", "10.0.0.7"], None)
    assert keep_certificate(authority, tmp_path, server, NOW)
    certificate = x509.load_pem_x509_certificate((tmp_path / "tls.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["nats", "localhost", "gpu.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7"]
    assert not keep_certificate(authority, tmp_path, server, NOW)
    moved = compute_plane.server(["10.0.0.8"], None)
    assert why_renewed(authority, tmp_path / "tls.pem", moved, NOW) == "it lacks names the part is reached by"


def test_what_has_to_be_carried_is_good_for_long_and_renewed_long_before_its_end(tmp_path: Path) -> None:
    authority = open_authority(tmp_path / "ca" / "ca.pem", NOW)
    server = compute_plane.server(["gpu.example"], None)
    keep_certificate(authority, tmp_path, server, NOW)
    assert not keep_certificate(authority, tmp_path, server, NOW + timedelta(days=274))
    assert keep_certificate(authority, tmp_path, server, NOW + timedelta(days=276))


def test_servers_are_told_of_a_compute_plane_when_there_is_one_and_not_again(tmp_path: Path) -> None:
    nats = open_nats_authority(tmp_path / "ca")
    assert keep_server_config(nats, tmp_path, None, NOW)
    assert not keep_server_config(nats, tmp_path, None, NOW)
    alone = (tmp_path / "accounts.conf").read_text()
    account = compute_plane.open_account(tmp_path / "ca")
    assert account == compute_plane.open_account(tmp_path / "ca")
    assert account.public not in alone
    assert keep_server_config(nats, tmp_path, None, NOW, account)
    assert not keep_server_config(nats, tmp_path, None, NOW, account)
    assert account.public in (tmp_path / "accounts.conf").read_text()
    assert keep_server_config(nats, tmp_path, None, NOW)
    assert (tmp_path / "accounts.conf").read_text() == alone


@as_root
def test_an_installation_gets_one_when_its_hosts_are_named(tmp_path: Path) -> None:
    Installation(tmp_path).keep(NOW)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert not (tmp_path / "compute-plane").exists()
    replaced = Installation(tmp_path, ["gpu.example"]).keep(NOW)
    assert replaced == {"compute-plane"}
    assert Installation(tmp_path, ["gpu.example"]).keep(NOW) == set()
    # No seed and no credentials are carried there.
    assert {file.name for file in (tmp_path / "compute-plane").iterdir()} == {
        "accounts.conf",
        "ca.crt",
        "tls.pem",
    }
    changed = {file for file, content in before.items() if file.read_bytes() != content}
    assert changed <= {tmp_path / "nats" / "accounts.conf", tmp_path / "nats" / "accounts.noted"}
    made = tmp_path / "controller" / "compute-plane"
    assert (made / "nats_account.seed").read_text() != (tmp_path / "controller/nats_account.seed").read_text()
    assert (made / "replicas_ca.pem").read_bytes() == (
        tmp_path / "controller" / "replicas_ca.pem"
    ).read_bytes()
    assert (made / "ca.crt").exists()
