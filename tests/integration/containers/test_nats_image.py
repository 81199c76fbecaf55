"""NATS of the compose file: its image with deploy/nats, and what the credentials' service issues for it."""

import asyncio
import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import nats
import nats.errors
import pytest
from tests.containers.parts import Parts, read

from servery_common.contracts.permissions import inbox_prefix
from servery_common.messaging.bus import connect_bus
from servery_common.settings import NatsSettings
from servery_common.tls import tls_context

pytestmark = pytest.mark.docker


class Server:
    """NATS, and what the gateway was issued for coming in."""

    def __init__(self, parts: Parts, folder: Path) -> None:
        self.credentials = parts.start("credentials", SERVERY_CREDENTIALS_CHECK_SECONDS="1")
        for name in ("ca.crt", "tls.pem", "nats.creds"):
            (folder / name).write_bytes(read(self.credentials, f"/credentials/gateway/{name}"))
        self.ca, self.certificate, self.user = folder / "ca.crt", folder / "tls.pem", folder / "nats.creds"
        self.port = parts.start("nats", port=4222).get_exposed_port(4222)
        self.url = f"nats://localhost:{self.port}"

    def settings(self) -> NatsSettings:
        return NatsSettings(
            url=self.url,
            credentials=self.user,
            inbox_prefix=inbox_prefix("gateway"),
            tls_ca=self.ca,
            tls_cert=self.certificate,
            tls_key=self.certificate,
        )

    async def shown(self) -> bytes | None:
        """The certificate whoever comes now is shown."""
        reader, writer = await asyncio.open_connection("localhost", self.port)
        try:
            await reader.readline()  # INFO comes before the handshake
            context = tls_context(self.ca, self.certificate, self.certificate)
            await writer.start_tls(context, server_hostname="localhost")
            return writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        finally:
            writer.close()


@pytest.fixture(scope="module")
def server(credentials_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Parts({"credentials": credentials_image}) as parts:
        yield Server(parts, tmp_path_factory.mktemp("nats"))


async def test_a_client_that_does_not_encrypt_is_let_go_without_an_answer(server: Server) -> None:
    reader, writer = await asyncio.open_connection("localhost", server.port)
    try:
        info = json.loads((await reader.readline()).removeprefix(b"INFO "))
        assert (info["tls_required"], info["tls_verify"], info["auth_required"]) == (True, True, True)
        writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
        async with asyncio.timeout(10):
            answer = await reader.read()
        assert b"PONG" not in answer
    finally:
        writer.close()


@pytest.mark.parametrize("lacks", ["a certificate", "credentials"])
async def test_who_lacks_something_does_not_come_in(server: Server, lacks: str) -> None:
    shown = None if lacks == "a certificate" else server.certificate
    user = None if lacks == "credentials" else server.user
    with pytest.raises((nats.errors.Error, ssl.SSLError, OSError)):
        await nats.connect(
            server.url,
            tls=tls_context(server.ca, shown, shown),
            user_credentials=user,
            allow_reconnect=False,
            connect_timeout=5,
        )


async def test_a_service_comes_in_and_stays_when_the_certificate_is_renewed(server: Server) -> None:
    async with asyncio.timeout(60), connect_bus(server.settings(), name="gateway", declare=False) as bus:
        losses: list[None] = []
        bus.on_disconnect(lambda: losses.append(None))
        before = await server.shown()
        ran = await asyncio.to_thread(server.credentials.exec, ["rm", "/credentials/nats/tls.pem"])
        assert ran.exit_code == 0
        while True:
            if await server.shown() != before:
                break
            await asyncio.sleep(0.1)
        assert bus.connected
        assert losses == []
