"""The runner's end of its socket: blocking reads of whole records, writes from several threads."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any, Optional

from servery_common.contracts import frames

SOCKET_BUFFER_BYTES = 1024 * 1024


class Channel:
    """Records to and from the agent."""

    def __init__(self, channel_socket: socket.socket) -> None:
        channel_socket.setblocking(True)
        channel_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        self._socket = channel_socket
        self._sending = threading.Lock()

    def receive(self) -> Optional[frames.Record]:
        """The next record; None when the agent is gone."""
        header = self._read(frames.HEADER.size)
        if header is None:
            return None
        kind, _flags, head_length, body_length, number = frames.HEADER.unpack(header)
        head = self._read(head_length)
        body = self._read(body_length)
        if head is None or body is None:
            return None
        return frames.Record(kind, number, json.loads(head) if head else {}, bytes(body))

    def send(self, kind: int, id: int, head: dict[str, Any], body: bytes = b"") -> None:
        """Send one record whole. Raises OSError when the agent is gone."""
        record = frames.encode(kind, id, head, body)
        with self._sending:
            self._socket.sendall(record)

    def _read(self, length: int) -> Optional[bytearray]:
        buffer = bytearray(length)
        view = memoryview(buffer)
        while view:
            try:
                # WAITALL: one wait for the whole body, so that a busy predict thread, which holds the
                # interpreter for 5 ms at a time, delays it once and not once per piece.
                taken = self._socket.recv_into(view, len(view), socket.MSG_WAITALL)
            except InterruptedError:
                continue
            except OSError:
                return None
            if not taken:
                return None
            view = view[taken:]
        return buffer
