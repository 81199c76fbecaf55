"""Orders to a warm parent and its answers: JSON lines on a socket pair, descriptors beside them.

=========  ===========================================================  =====================================
order      fields                                                       answer
=========  ===========================================================  =====================================
``fork``   ``id``; descriptors: the runner's socket, its output pipe    ``forked`` ``id`` ``pid`` or
                                                                        ``refused`` ``id`` ``error``
``kill``   ``pid``                                                      none; ``exited`` follows
=========  ===========================================================  =====================================

Unasked: ``warm`` (``seconds``, ``unforkable``) once, ``exited`` (``pid``, ``status``) for each runner.
"""

from __future__ import annotations

import array
import json
import socket
from typing import Any, Optional

FDS_PER_FORK = 2

WARM = "warm"
FORK = "fork"
FORKED = "forked"
REFUSED = "refused"
KILL = "kill"
EXITED = "exited"


def encode(what: str, **fields: Any) -> bytes:
    """One message."""
    return json.dumps({"what": what, **fields}, separators=(",", ":")).encode() + b"\n"


class Lines:
    """Cuts what arrives into messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Messages completed by ``data``, in order."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]


class OrderReader:
    """The warm parent's end: messages together with the descriptors that came with them."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._lines = Lines()
        self._fds: list[int] = []

    def receive(self) -> Optional[list[dict[str, Any]]]:
        """Wait for orders; a ``fork`` carries ``fds``. None when the worker is gone."""
        room = socket.CMSG_SPACE(16 * array.array("i").itemsize)
        data, ancillary, _, _ = self._control.recvmsg(64 * 1024, room)
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
                self._fds.extend(fds)
        if not data:
            return None
        orders = self._lines.feed(data)
        for order in orders:
            if order["what"] == FORK:
                order["fds"] = self._fds[:FDS_PER_FORK]
                del self._fds[:FDS_PER_FORK]
        return orders
