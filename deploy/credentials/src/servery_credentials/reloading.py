"""Tell running servers that their certificates were replaced. No signals: they run in other containers."""

import asyncio
import json
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import nats
import nats.errors
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from nats.aio.client import Client
from nats.aio.msg import Msg

from servery_common.tls import tls_context

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 3
ANSWER_SECONDS = 1.0
_SSL_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)
"""Asks Postgres for TLS: the length of the message, and its code."""


async def reload_nats(url: str, credentials: Path, ca: Path, cert: Path) -> bool:
    """Have every server of a cluster read its configuration and certificates again; False unless all did."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):  # nats-py tries for two minutes
            client = await nats.connect(
                url, user_credentials=credentials, tls=tls_context(ca, cert, cert), allow_reconnect=False
            )
    except (nats.errors.Error, OSError, TimeoutError) as error:
        log.warning("nats_not_reloaded", reason=repr(error))
        return False
    try:
        servers = await _servers(client)
        problems = [problem for server in servers if (problem := await _reload(client, server))]
    finally:
        await client.close()
    for problem in problems:
        log.warning("nats_not_reloaded", reason=problem)
    if servers and not problems:
        log.info("nats_reloaded", servers=len(servers))
    return bool(servers) and not problems


async def _servers(client: Client) -> list[str]:
    """The ids of all servers that answer in time."""
    found: list[str] = []

    async def note(answer: Msg) -> None:
        found.append(json.loads(answer.data)["server"]["id"])

    inbox = client.new_inbox()
    await client.subscribe(inbox, cb=note)
    await client.publish("$SYS.REQ.SERVER.PING", reply=inbox)
    await asyncio.sleep(ANSWER_SECONDS)
    return found


async def _reload(client: Client, server: str) -> str | None:
    try:
        answer = await client.request(f"$SYS.REQ.SERVER.{server}.RELOAD", b"{}", timeout=CONNECT_SECONDS)
        return json.loads(answer.data).get("error")
    except (nats.errors.Error, TimeoutError, ValueError) as error:
        return repr(error)


async def reload_postgres(url: str, ca: Path, issued: Path) -> bool:
    """Have Postgres read its certificate again; False unless it then shows the one in ``issued``.

    Connections keep the one they began with. Of a file that makes no sense Postgres complains in its own log alone, and
    goes on with what it had: so what it shows is looked at.
    """
    expected = x509.load_pem_x509_certificate(issued.read_bytes()).public_bytes(Encoding.DER)
    context = tls_context(ca, None, None)
    assert context is not None
    try:
        async with asyncio.timeout(2 * CONNECT_SECONDS):
            connection = await asyncpg.connect(url, ssl=context)
            try:
                await connection.execute("SELECT pg_reload_conf()")
            finally:
                await connection.close()
            for pause in (0.05, 0.2, 0.5, 1.0):
                if await shown_by_postgres(url, context) == expected:
                    log.info("postgres_reloaded")
                    return True
                await asyncio.sleep(pause)
        reason = "it still shows another certificate; its log says why"
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, EOFError) as error:
        reason = repr(error)
    log.warning("postgres_not_reloaded", reason=reason)
    return False


async def shown_by_postgres(url: str, context: ssl.SSLContext) -> bytes | None:
    """Return the certificate, in DER, that whoever comes now is shown. Raises OSError or EOFError."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(_SSL_REQUEST)
        if await reader.readexactly(1) != b"S":
            raise ConnectionError("Postgres does not offer TLS")
        await writer.start_tls(context, server_hostname=address.hostname)
        return writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
