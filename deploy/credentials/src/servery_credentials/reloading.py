"""Tell running servers that their certificates were replaced. No signals: they run in other containers."""

import asyncio
import json
from pathlib import Path

import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from servery_common.tls import tls_context

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 3
ANSWER_SECONDS = 1.0


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
