"""The runner's end of its socket: blocking reads of all that has arrived, writes from several threads."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any, Optional, Union

from servery_common.contracts import frames

SOCKET_BUFFER_BYTES = 1024 * 1024
READ_BYTES = 256 * 1024


class Channel:
    """Records to and from the agent."""

    def __init__(self, channel_socket: socket.socket) -> None:
        channel_socket.setblocking(True)
        channel_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        self._socket = channel_socket
        self._sending = threading.Lock()
        self._rest: Union[bytes, bytearray] = b""

    def receive(self) -> Optional[list[frames.Record]]:
        """Wait for records and return all that have arrived; None when the agent is gone.

        As few reads as possible: each one gives the interpreter away, and a busy predict thread keeps it for 5 ms.
        """
        while True:
            records = self._whole_records()
            if records:
                return records
            if not self._read_more():
                return None

    def send(self, kind: int, id: int, head: dict[str, Any], body: bytes = b"", flags: int = 0) -> None:
        """Send one record whole. Raises OSError when the agent is gone."""
        self.send_packed(frames.encode(kind, id, head, body, flags))

    def send_packed(self, records: bytes) -> None:
        """Send whole records. Raises OSError when the agent is gone."""
        with self._sending:
            self._socket.sendall(records)

    def _whole_records(self) -> list[frames.Record]:
        buffer, at = self._rest, 0
        view = memoryview(buffer)
        records: list[frames.Record] = []
        while len(buffer) - at >= frames.HEADER.size:
            kind, flags, head_length, body_length, number = frames.HEADER.unpack_from(buffer, at)
            head_at = at + frames.HEADER.size
            body_at = head_at + head_length
            if len(buffer) - body_at < body_length:
                break
            head = json.loads(buffer[head_at:body_at]) if head_length else {}
            at = body_at + body_length
            records.append(frames.Record(kind, number, head, bytes(view[body_at:at]), flags))
        if at:
            self._rest = buffer[at:]
        return records

    def _read_more(self) -> bool:
        missing = self._missing()
        if missing > READ_BYTES:
            # A long record is read in one wait, into its place.
            return self._read_whole(missing)
        more = self._read(READ_BYTES)
        self._rest = self._rest + more if self._rest else more
        return bool(more)

    def _missing(self) -> int:
        """Bytes known to be missing of the record that has begun to arrive."""
        if len(self._rest) < frames.HEADER.size:
            return 0
        _, _, head_length, body_length, _ = frames.HEADER.unpack_from(self._rest)
        return frames.HEADER.size + head_length + body_length - len(self._rest)

    def _read(self, length: int) -> bytes:
        while True:
            try:
                return self._socket.recv(length)
            except InterruptedError:
                continue
            except OSError:
                return b""

    def _read_whole(self, missing: int) -> bool:
        have = len(self._rest)
        buffer = bytearray(have + missing)
        buffer[:have] = self._rest
        self._rest = buffer
        view = memoryview(buffer)[have:]
        while view:
            try:
                taken = self._socket.recv_into(view, len(view), socket.MSG_WAITALL)
            except InterruptedError:
                continue
            except OSError:
                return False
            if not taken:
                return False
            view = view[taken:]
        return True
