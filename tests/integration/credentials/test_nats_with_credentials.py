"""A NATS server that has nothing but the files that were issued for it, and services that have theirs."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from servery_credentials.certificates import Identity, keep_certificate, open_authority
from servery_credentials.nats_accounts import (
    keep_account_seed,
    keep_credentials,
    keep_server_config,
    keep_system_credentials,
    open_nats_authority,
)
from servery_credentials.reloading import reload_nats
from tests.infrastructure import NatsServer

from servery_common.contracts import subjects
from servery_common.contracts.permissions import SERVICES, inbox_prefix, of_replica
from servery_common.contracts.replicas import Done
from servery_common.messaging.bus import connect_bus
from servery_common.settings import NatsSettings

SERVER = Identity("nats", hosts=("127.0.0.1", "localhost"))


class Installation:
    """Everything issued to one directory, as at its first start."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.authority = open_authority(root / "ca" / "ca.pem", datetime.now(UTC))
        self.nats = open_nats_authority(root / "ca")
        now = datetime.now(UTC)
        keep_certificate(self.authority, root / "nats", SERVER, now)
        keep_server_config(self.nats, root / "nats", None, now)
        for name, rights in {**SERVICES, "r1": of_replica("r1")}.items():
            keep_certificate(self.authority, root / name, Identity(name), now)
            keep_credentials(self.nats.account, root / name, name, rights, None, now)
        keep_account_seed(self.nats, root / "controller", None)

    def settings(self, url: str, name: str) -> NatsSettings:
        own = self.root / name
        return NatsSettings(
            url=url.replace("127.0.0.1", "localhost"),
            credentials=own / "nats.creds",
            inbox_prefix=inbox_prefix(name),
            tls_ca=own / "ca.crt",
            tls_cert=own / "tls.pem",
            tls_key=own / "tls.pem",
        )


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path / "credentials")


@pytest.fixture
def server(tmp_path: Path, installation: Installation) -> Iterator[NatsServer]:
    own = installation.root / "nats"
    config = (
        f'include "{Path("credentials/nats/accounts.conf")}"\n'
        f'tls {{ cert_file: "{own}/tls.pem", key_file: "{own}/tls.pem", ca_file: "{own}/ca.crt", verify: true }}\n'
    )
    server = NatsServer(tmp_path, config=config)
    server.start()
    yield server
    server.stop()


def shown_serial(port: int, installation: Installation) -> int:
    """The serial number of the certificate a server shows to who comes now."""
    context = ssl.create_default_context(cafile=installation.root / "gateway" / "ca.crt")
    context.load_cert_chain(installation.root / "gateway" / "tls.pem")
    with socket.create_connection(("localhost", port), 5) as plain:
        plain.recv(4096)  # INFO comes before the handshake
        with context.wrap_socket(plain, server_hostname="localhost") as encrypted:
            certificate = encrypted.getpeercert()
    assert certificate is not None
    return int(str(certificate["serialNumber"]), 16)


async def test_every_service_comes_in_with_what_was_issued_for_it(
    server: NatsServer, installation: Installation
) -> None:
    for name in SERVICES:
        declares = name in ("controller", "builder")
        async with (
            asyncio.timeout(10),
            connect_bus(installation.settings(server.url, name), name=name, declare=declares) as bus,
        ):
            assert bus.connected, name


async def test_issuing_again_changes_nothing_until_rights_change(installation: Installation) -> None:
    file = installation.root / "gateway" / "nats.creds"
    before = file.read_bytes()
    now = datetime.now(UTC)
    again = Installation(installation.root)
    assert file.read_bytes() == before
    assert keep_credentials(again.nats.account, file.parent, "gateway", SERVICES["scaler"], None, now)
    assert file.read_bytes() != before


async def test_a_replaced_certificate_is_shown_after_a_reload_and_no_connection_ends(
    server: NatsServer, installation: Installation
) -> None:
    settings = installation.settings(server.url, "gateway")
    own = installation.root / "nats"
    async with asyncio.timeout(30), connect_bus(settings, name="gateway", declare=False) as bus:
        losses: list[None] = []
        bus.on_disconnect(lambda: losses.append(None))
        before = await asyncio.to_thread(shown_serial, server.port, installation)
        (own / "tls.pem").unlink()
        assert keep_certificate(installation.authority, own, SERVER, datetime.now(UTC))
        assert await asyncio.to_thread(shown_serial, server.port, installation) == before
        system = keep_system_credentials(installation.nats, installation.root / "ca", datetime.now(UTC))
        me = installation.root / "worker"
        assert await reload_nats(settings.url, system, me / "ca.crt", me / "tls.pem")
        assert await asyncio.to_thread(shown_serial, server.port, installation) != before
        assert losses == []


@pytest.mark.parametrize(
    ("asks", "answers", "subject"),
    [
        ("gateway", "controller", subjects.controller_http()),
        ("scaler", "controller", subjects.controller_scale()),
        ("builder", "controller", subjects.controller_builds_in_use()),
        ("worker", "controller", subjects.controller_issue_model_token()),
        ("r1", "controller", subjects.controller_renew_credentials("r1")),
        ("controller", "scaler", subjects.scaler_explain()),
        ("controller", "builder", subjects.builder_describe()),
        ("controller", "worker", subjects.worker_ensure("w1")),
        ("builder", "worker", subjects.worker_verify()),
    ],
)
async def test_an_answer_under_way_survives_a_reload(
    server: NatsServer, installation: Installation, asks: str, answers: str, subject: str
) -> None:
    """The server forgets with each reload to whom an answer was owed."""
    system = keep_system_credentials(installation.nats, installation.root / "ca", datetime.now(UTC))
    me = installation.root / "worker"
    url = installation.settings(server.url, "worker").url
    asked, reloaded = asyncio.Event(), asyncio.Event()

    async def answer(_: Done) -> Done:
        asked.set()
        await reloaded.wait()
        return Done()

    async with (
        asyncio.timeout(30),
        connect_bus(installation.settings(server.url, asks), name=asks, declare=False) as asking,
        connect_bus(installation.settings(server.url, answers), name=answers, declare=False) as answering,
    ):
        await answering.serve(subject, Done, answer)
        answered = asyncio.create_task(asking.request(subject, Done(), Done, timeout=20))
        await asked.wait()
        assert await reload_nats(url, system, me / "ca.crt", me / "tls.pem")
        reloaded.set()
        assert await answered == Done()


async def test_a_server_that_cannot_be_reached_is_told_apart(
    installation: Installation, tmp_path: Path
) -> None:
    system = keep_system_credentials(installation.nats, installation.root / "ca", datetime.now(UTC))
    me = installation.root / "worker"
    assert not await reload_nats("nats://localhost:1", system, me / "ca.crt", me / "tls.pem")


async def test_a_service_may_not_reload_servers(server: NatsServer, installation: Installation) -> None:
    own = installation.root / "gateway"
    assert not await reload_nats(
        server.url.replace("127.0.0.1", "localhost"), own / "nats.creds", own / "ca.crt", own / "tls.pem"
    )


def test_seeds_are_for_their_owners_eyes(installation: Installation) -> None:
    for file in ("ca/nats.json", "controller/nats_account.seed", "gateway/nats.creds"):
        assert (installation.root / file).stat().st_mode & 0o077 == 0, file
    assert not (installation.root / "gateway" / "nats_account.seed").exists()
