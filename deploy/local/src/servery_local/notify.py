"""Hear from a service that it is ready, in the way of sd_notify(3).

The supervisor binds one datagram socket per child and names it in NOTIFY_SOCKET; the child sends
lines such as `READY=1`. The kernel keeps what arrives before somebody listens.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

NOTIFICATION_LIMIT = 4096


def parse_notification(datagram: bytes) -> dict[str, str]:
    """Return the assignments of one sd_notify datagram; lines without `=` are ignored."""
    lines = datagram.decode(errors="replace").splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {name: value for name, _, value in pairs}


class ReadyListener:
    """A notification socket at `path`; `ready` is set once READY=1 has arrived.

    Must be used inside a running event loop. Closing removes the socket.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ready = asyncio.Event()
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            self._socket.bind(os.fspath(path))
        except OSError:
            self._socket.close()
            raise
        asyncio.get_running_loop().add_reader(self._socket, self._receive)

    def close(self) -> None:
        """Stop listening. Closing twice changes nothing."""
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
        self.path.unlink(missing_ok=True)

    def _receive(self) -> None:
        try:
            datagram = self._socket.recv(NOTIFICATION_LIMIT)
        except BlockingIOError:
            return
        if parse_notification(datagram).get("READY") == "1":
            self.ready.set()
