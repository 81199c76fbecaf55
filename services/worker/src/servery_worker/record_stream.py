"""Cut a byte stream into records. Pure."""

from collections.abc import Iterator

from servery_common.contracts import frames

LARGEST_RECORD_BYTES = 256 * 1024 * 1024
"""A runner that announces more has lost its mind, or wants the agent's memory."""


class RecordStream:
    """Bytes in as they come, whole records out."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed = frames.HEADER.size

    def feed(self, data: bytes) -> Iterator[frames.Record]:
        """Yield the records completed by ``data``. Raises FrameError when it cannot be a record."""
        self._buffer += data
        while len(self._buffer) >= self._needed:
            _, _, head_length, body_length, _ = frames.HEADER.unpack_from(self._buffer)
            self._needed = frames.HEADER.size + head_length + body_length
            if self._needed > LARGEST_RECORD_BYTES:
                raise frames.FrameError(f"a record of {self._needed} bytes")
            if len(self._buffer) < self._needed:
                return
            record = bytes(memoryview(self._buffer)[: self._needed])
            del self._buffer[: self._needed]
            self._needed = frames.HEADER.size
            yield from frames.decode(record)
