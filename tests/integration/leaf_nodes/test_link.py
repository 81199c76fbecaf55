"""Who may open the link, and what the servers say of those who may not."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from servery_credentials.certificates import Identity, keep_certificate, open_authority
from tests.infrastructure import free_port
from tests.integration.leaf_nodes.conftest import Planes
from tests.integration.leaf_nodes.planes import Issued, PlaneServer, compute_plane_server, control_plane
from tests.waiting import until

from servery_common.contracts.permissions import of_link, of_replica
from servery_common.nats_credentials import Authority, make_user

NOW = datetime.now(UTC)
SECOND = timedelta(seconds=1)
STANDS = "JetStream using domains"
"""What a server says of a leaf node that it has let in, after all that is checked."""
Spoil = Callable[[Issued, Path], None]


def expired(issued: Issued, credentials: Path) -> None:
    made = make_user(issued.plane, "link", of_link(), NOW, -SECOND, connects_as="LEAFNODE")
    replace(credentials / "compute-plane" / "nats.creds", made)


def another_installations(issued: Issued, credentials: Path) -> None:
    made = make_user(Authority.make().account, "link", of_link(), NOW, connects_as="LEAFNODE")
    replace(credentials / "compute-plane" / "nats.creds", made)


def of_the_control_planes_account(issued: Issued, credentials: Path) -> None:
    made = make_user(issued.nats.account, "link", of_link(), NOW, connects_as="LEAFNODE")
    replace(credentials / "compute-plane" / "nats.creds", made)


def a_replicas(issued: Issued, credentials: Path) -> None:
    replace(
        credentials / "compute-plane" / "nats.creds", make_user(issued.plane, "a1", of_replica("a1"), NOW)
    )


def certificate_of_another_authority(issued: Issued, credentials: Path) -> None:
    (credentials / "tls.pem").unlink()
    keep_certificate(
        open_authority(credentials / "other.pem", NOW), credentials, Identity("nats", ("nats",)), NOW
    )
    replace(credentials / "ca.crt", issued.certificates.pem.decode())


def certificate_that_has_ended(issued: Issued, credentials: Path) -> None:
    (credentials / "tls.pem").unlink()
    long_ago = NOW - timedelta(days=60)
    keep_certificate(issued.certificates, credentials, Identity("nats", ("nats",)), long_ago)


def replace(file: Path, content: str) -> None:
    file.unlink()
    file.write_text(content)


@dataclass
class Another:
    """A second control plane's server, and what was said since it was started."""

    server: PlaneServer
    planes: Planes
    before: int

    def here(self) -> str:
        return self.server.log()

    def there(self) -> str:
        return self.planes.there.log()[self.before :]

    def stands(self) -> bool:
        return STANDS in self.there()


@contextlib.asynccontextmanager
async def another_control_plane(planes: Planes, root: Path, spoil: Spoil) -> AsyncIterator[Another]:
    planes.here.stop()
    server = control_plane(root / "here", planes.issued, planes.wire.port)
    spoil(planes.issued, server.issued)
    before = len(planes.there.log())
    server.start()
    try:
        yield Another(server, planes, before)
    finally:
        server.stop()


@pytest.mark.parametrize("spoil", [expired, another_installations, of_the_control_planes_account, a_replicas])
async def test_other_credentials_than_the_links_open_nothing_and_both_servers_say_so(
    planes: Planes, tmp_path: Path, spoil: Spoil
) -> None:
    async with another_control_plane(planes, tmp_path, spoil) as other:
        await until(lambda: "Leafnode Error 'Authorization Violation'" in other.here())
        await until(lambda: "authentication error" in other.there())
        assert not other.stands()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (certificate_of_another_authority, "x509: certificate signed by unknown authority"),
        (certificate_that_has_ended, "x509: certificate has expired"),
    ],
)
async def test_another_certificate_opens_nothing_and_the_server_over_there_says_why(
    planes: Planes, tmp_path: Path, spoil: Spoil, said: str
) -> None:
    async with another_control_plane(planes, tmp_path, spoil) as other:
        await until(
            lambda: (
                f"TLS leafnode handshake error: tls: failed to verify certificate: {said}" in other.there()
            )
        )
        assert not other.stands()


async def test_with_what_was_issued_the_link_stands(planes: Planes, tmp_path: Path) -> None:
    async with another_control_plane(planes, tmp_path, lambda issued, credentials: None) as other:
        await until(other.stands)


async def test_the_control_plane_believes_no_server_of_another_authority(tmp_path: Path) -> None:
    ours, theirs = Issued(tmp_path / "ours"), Issued(tmp_path / "theirs")
    port = free_port()
    there = compute_plane_server(tmp_path / "there", theirs, port)
    here = control_plane(tmp_path / "here", ours, port)
    there.start()
    here.start()
    try:
        await until(lambda: "x509: certificate signed by unknown authority" in here.log())
    finally:
        here.stop()
        there.stop()


async def test_certificates_that_were_replaced_are_shown_after_a_reload(
    planes: Planes, tmp_path: Path
) -> None:
    def leave(issued: Issued, credentials: Path) -> None:
        pass

    async with another_control_plane(planes, tmp_path, leave) as other:
        await until(other.stands)
        certificate_that_has_ended(planes.issued, other.server.issued)
        other.server.reload()
        await until(lambda: "Reloaded server configuration" in other.here())
        planes.wire.cut()
        planes.wire.mend()
        await until(lambda: "x509: certificate has expired" in other.there())
        # Nobody has to do anything else than issue a good one.
        (other.server.issued / "tls.pem").unlink()
        keep_certificate(planes.issued.certificates, other.server.issued, Identity("nats", ("nats",)), NOW)
        said = len(other.there())
        other.server.reload()
        await until(lambda: STANDS in other.there()[said:])
