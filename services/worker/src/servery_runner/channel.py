"""The runner's end of its socket: blocking reads of all that has arrived, writes from several threads."""

from __future__ import annotations

import socket
import threading
from typing import Any, NamedTuple, Optional, Union

from servery_common.contracts import frames

SOCKET_BUFFER_BYTES = 1024 * 1024
READ_BYTES = 256 * 1024


class Received(NamedTuple):
    """A record from the agent. The head is not read."""

    kind: int
    flags: int
    id: int
    head: bytes
    body: Union[bytes, bytearray]
    """A bytearray when it is long."""


class Channel:
    """Records to and from the agent."""

    def __init__(self, channel_socket: socket.socket) -> None:
        channel_socket.setblocking(True)
        channel_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        self._socket = channel_socket
        self._sending = threading.Lock()
        self._rest = b""

    def receive(self) -> Optional[list[Received]]:
        """Wait for records and return all that have arrived; None when the agent is gone.

        As few reads as possible: each one gives the interpreter away, and a busy predict thread keeps it for 5 ms.
        """
        while True:
            records = self._whole_records()
            if records:
                return records
            if self._is_long():
                record = self._read_long()
                return None if record is None else [record]
            more = self._read(READ_BYTES)
            if not more:
                return None
            self._rest = self._rest + more if self._rest else more

    def send(self, kind: int, id: int, head: dict[str, Any], body: bytes = b"", flags: int = 0) -> None:
        """Send one record whole. Raises OSError when the agent is gone."""
        self.send_packed(frames.encode(kind, id, head, body, flags))

    def send_packed(self, records: bytes) -> None:
        """Send whole records. Raises OSError when the agent is gone."""
        with self._sending:
            self._socket.sendall(records)

    def _whole_records(self) -> list[Received]:
        buffer, at = self._rest, 0
        records: list[Received] = []
        while len(buffer) - at >= frames.HEADER.size:
            kind, flags, head_length, body_length, number = frames.HEADER.unpack_from(buffer, at)
            head_at = at + frames.HEADER.size
            body_at = head_at + head_length
            if len(buffer) - body_at < body_length:
                break
            at = body_at + body_length
            records.append(Received(kind, flags, number, buffer[head_at:body_at], buffer[body_at:at]))
        if at:
            self._rest = buffer[at:]
        return records

    def _is_long(self) -> bool:
        """Whether much is missing of the body that has begun to arrive."""
        if len(self._rest) < frames.HEADER.size:
            return False
        _, _, head_length, body_length, _ = frames.HEADER.unpack_from(self._rest)
        body_at = frames.HEADER.size + head_length
        return body_at <= len(self._rest) < body_at + body_length - READ_BYTES

    def _read_long(self) -> Optional[Received]:
        """Read the rest of a long record in one wait, into its place; None when the agent is gone."""
        kind, flags, head_length, body_length, number = frames.HEADER.unpack_from(self._rest)
        body_at = frames.HEADER.size + head_length
        head, have = self._rest[frames.HEADER.size : body_at], len(self._rest) - body_at
        body = bytearray(body_length)
        body[:have] = memoryview(self._rest)[body_at:]
        self._rest = b""
        view = memoryview(body)[have:]
        while view:
            try:
                taken = self._socket.recv_into(view, len(view), socket.MSG_WAITALL)
            except InterruptedError:
                continue
            except OSError:
                return None
            if not taken:
                return None
            view = view[taken:]
        return Received(kind, flags, number, head, body)

    def _read(self, length: int) -> bytes:
        while True:
            try:
                return self._socket.recv(length)
            except InterruptedError:
                continue
            except OSError:
                return b""
