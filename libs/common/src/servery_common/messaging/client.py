"""A nats-py client that survives what a production network does to it.

nats-py (2.16) reconnects well after a clean loss. The other cases are repaired here, each in the one
method it concerns:

* Any ``-ERR`` but a permission violation closes the client for good. Here it reconnects.
* One answer to a ping that nobody waits for any more (a cancelled future) ends the read loop; the client then
  says it is connected for ever while nothing arrives. Here such a pong is ignored, and a watchdog
  with its own round trips replaces a connection that is silent or has lost its read loop.
* A connection to a vanished host with unsent data blocks the reconnect for minutes, in closing
  the old socket. Here the old socket is aborted, and TCP gives up unacknowledged data after 5 s.
* Requests in flight wait for their timeout when the connection is lost. Here they fail at once.
* A ping overtakes what still waits to be written, so a flush that came back proved nothing about the subscription
  before it: requests met "no responders". Here a ping waits its turn.
* Closing raises when the connection breaks just then. Here it closes.
* The size limit is checked without headers; the server closes the connection of who exceeds it by one byte.
  Here headers count.
* Whether to encrypt is decided by what the server says in the clear. Here who was told to encrypt sends nothing before.
"""

# The repairs are overrides of nats-py's own methods.
# pyright: reportPrivateUsage=false

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

import structlog
from nats import errors
from nats.aio.client import PING_PROTO, Client, Srv

log = structlog.get_logger(__name__)

TCP_USER_TIMEOUT_MS = 5000
WATCH_SECONDS = 1.0
PROBE_EVERY = 5
"""Watchdog rounds between two round trips."""
PROBE_SECONDS = 5
"""With up to ``PROBE_EVERY`` s before the probe: a silent connection is replaced after at most 10 s."""


class ResilientClient(Client):
    """See the module. Made by ``connection``."""

    def __init__(self) -> None:
        super().__init__()
        self.disconnect_callbacks: list[Callable[[], None]] = []
        self.reconnect_callbacks: list[Callable[[], None]] = []
        self._watchdog: asyncio.Task[None] | None = None

    def start_watchdog(self) -> None:
        """Begin to watch the connection; ends when the client is closed."""
        self._watchdog = asyncio.create_task(self._watch(), name="nats-watchdog")

    async def settle(self) -> None:
        """Return when the server has what was sent so far, such as a subscription, or cannot be asked."""
        with contextlib.suppress(errors.Error, OSError):
            if self.is_connected:
                await self.flush(2)

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        self._pongs.append(asyncio.get_running_loop().create_future() if future is None else future)
        await self._send_command(PING_PROTO)
        await self._flush_pending()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        if status == Client.CLOSED and self._watchdog is not None:
            self._watchdog.cancel()
        try:
            await super()._close(status, do_cbs)
        except OSError:
            # Broken while the rest was written: what follows that in nats-py is left to do.
            for subscription in self._subs.values():
                if subscription._wait_for_msgs_task is not None:
                    subscription._wait_for_msgs_task.cancel()
            self._subs.clear()

    async def _connect_to_server(self, s: Srv) -> None:
        await super()._connect_to_server(s)
        writer = getattr(self._transport, "_io_writer", None)
        sock = writer.get_extra_info("socket") if writer is not None else None
        if sock is None:
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS)

    def _connect_command(self) -> bytes:
        writer = getattr(self._transport, "_io_writer", None)
        if self.options.get("tls") is not None and writer and writer.get_extra_info("ssl_object") is None:
            raise errors.Error("the server does not encrypt, and SERVERY_NATS_TLS_CA says that it has to")
        return super()._connect_command()

    async def _process_err(self, err_msg: str) -> None:
        error = errors.Error(f"nats: {err_msg}")
        self._err = error
        await self._error_cb(error)
        if "permissions violation" not in err_msg.lower():
            await self._process_op_err(error)

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():
            self._pongs.pop(0)
            self._pongs_received += 1
            self._pings_outstanding = 0
            return
        await super()._process_pong()

    async def _attempt_reconnect(self) -> None:
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        for future in list(self._resp_map.values()):
            if not future.done():
                future.set_exception(errors.ConnectionReconnectingError())
        for callback in self.disconnect_callbacks:
            callback()
        await super()._attempt_reconnect()

    async def _send_publish(
        self,
        subject: str,
        reply: str,
        payload: bytes,
        payload_size: int,
        headers: dict[str, Any] | None,
    ) -> None:
        if headers and payload_size + headers_size(headers) > self._max_payload:
            raise errors.MaxPayloadError
        await super()._send_publish(subject, reply, payload, payload_size, headers)

    async def _watch(self) -> None:
        rounds = 0
        while not self.is_closed:
            await asyncio.sleep(WATCH_SECONDS)
            if self.is_reconnecting and _ended(self._reconnection_task):
                log.warning("nats_connection_replaced", reason="the reconnect had ended")
                self._reconnection_task = asyncio.create_task(self._attempt_reconnect())
            elif self.is_connected and _ended(self._reading_task):
                log.warning("nats_connection_replaced", reason="the read loop had ended")
                await self.force_reconnect()
            elif self.is_connected and (rounds := rounds + 1) % PROBE_EVERY == 0:
                await self._probe()

    async def _probe(self) -> None:
        probed = self._transport, self.stats["reconnects"]
        try:
            await self.rtt(PROBE_SECONDS)
        except errors.Error:
            if self.is_connected and probed == (self._transport, self.stats["reconnects"]):
                log.warning("nats_connection_replaced", reason="it did not answer")
                await self.force_reconnect()


def headers_size(headers: dict[str, Any]) -> int:
    """Return the bytes of a header block on the wire, which count against the server's limit."""
    lines = sum(len(name.encode()) + len(str(value).encode()) + 4 for name, value in headers.items())
    return len(b"NATS/1.0\r\n") + lines + len(b"\r\n")


def _ended(task: asyncio.Task[Any] | None) -> bool:
    return task is not None and task.done()
