"""NATS with TLS and certificates on both sides."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.infrastructure import NatsServer
from tests.integration.common.certificates import CertificateAuthority

from servery_common.messaging.bus import connect_bus
from servery_common.messaging.connection import connect_inference
from servery_common.settings import NatsSettings


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path)


@pytest.fixture
def server(tmp_path: Path, authority: CertificateAuthority) -> Iterator[NatsServer]:
    cert, key = authority.issue("nats")
    tls = f'tls {{ cert_file: "{cert}", key_file: "{key}", ca_file: "{authority.file}", verify: true }}'
    server = NatsServer(tmp_path, config=tls)
    server.start()
    yield server
    server.stop()


def settings(server: NatsServer, authority: CertificateAuthority, cert: Path, key: Path) -> NatsSettings:
    return NatsSettings(url=server.url, tls_ca=authority.file, tls_cert=cert, tls_key=key)


async def refused(settings: NatsSettings) -> bool:
    try:
        async with asyncio.timeout(3), connect_bus(settings, name="refused"):
            return False
    except TimeoutError:
        return True


async def test_both_kinds_of_connection_encrypt_and_carry_what_is_longer_than_a_record(
    server: NatsServer, authority: CertificateAuthority
) -> None:
    ours = settings(server, authority, *authority.issue("gateway"))
    client = await connect_inference(ours, name="inference", on_disconnect=lambda: None)
    received: asyncio.Queue[bytes] = asyncio.Queue()
    try:
        await client.receive("servery.infer.r1", lambda payload, *_: received.put_nowait(bytes(payload)))
        await client.flush(2)
        for size in (1, 20_000, 600_000):
            client.send("servery.infer.r1", [b"x" * size])
            assert len(await asyncio.wait_for(received.get(), 5)) == size
        assert client.unsent == 0
    finally:
        await client.close()
    async with connect_bus(ours, name="bus") as bus:
        assert bus.connected


async def test_a_certificate_that_was_replaced_is_shown_at_the_next_connect(
    server: NatsServer, authority: CertificateAuthority
) -> None:
    cert, key = authority.issue("gateway")
    client = await connect_inference(
        settings(server, authority, cert, key), name="rotating", on_disconnect=lambda: None
    )
    back = asyncio.Event()
    client.reconnect_callbacks.append(back.set)
    try:
        authority.issue("gateway")
        server.restart()
        await asyncio.wait_for(back.wait(), 10)
        # Now one that has ended: no connection until there is a good one again.
        authority.issue("gateway", lifetime=timedelta(hours=-1))
        back.clear()
        server.restart()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(back.wait(), 2)
        authority.issue("gateway")
        await asyncio.wait_for(back.wait(), 10)
    finally:
        await client.close()


async def test_without_a_certificate_of_the_authority_nobody_comes_in(
    server: NatsServer, authority: CertificateAuthority, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    stranger = CertificateAuthority(tmp_path / "other", "stranger")
    attempts = {
        "nothing": NatsSettings(url=server.url),
        "no certificate": NatsSettings(url=server.url, tls_ca=authority.file),
        "a stranger's": settings(server, authority, *stranger.issue("gateway")),
        "an expired one": settings(server, authority, *authority.issue("late", timedelta(hours=-1))),
        "a server nobody trusts": NatsSettings(url=server.url, tls_ca=stranger.file),
    }
    outcomes = await asyncio.gather(*map(refused, attempts.values()))
    assert dict(zip(attempts, outcomes, strict=True)) == dict.fromkeys(attempts, True)


async def test_who_was_told_to_encrypt_sends_nothing_in_the_clear(
    nats_server: NatsServer, authority: CertificateAuthority
) -> None:
    assert await refused(settings(nats_server, authority, *authority.issue("gateway")))
