"""Cut a byte stream into records. Pure."""

from servery_common.contracts import frames

LARGEST_HEAD_BYTES = 2**16 - 1


class RecordStream:
    """Bytes in as they come, whole records out.

    A runner keeps its bodies below ``largest_body`` bytes. One that announces more has lost its mind, or wants the
    agent's memory.
    """

    def __init__(self, largest_body: int) -> None:
        self._largest = frames.HEADER.size + LARGEST_HEAD_BYTES + largest_body
        self._buffer = bytearray()
        self._needed = frames.HEADER.size

    def feed(self, data: bytes) -> list[frames.RawRecord]:
        """Return the records completed by ``data``. Raises FrameError when it cannot be a record."""
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return []  # Most of a long record's pieces.
            data, self._buffer = bytes(self._buffer), bytearray()
        end = self._end_of_records(data)
        if end < len(data):
            self._buffer += memoryview(data)[end:]
        return list(frames.scan(memoryview(data)[:end])) if end else []

    def _end_of_records(self, data: bytes) -> int:
        """Where the last whole record ends; notes how long the one after it is going to be."""
        at, size = 0, len(data)
        self._needed = frames.HEADER.size
        while size - at >= frames.HEADER.size:
            _, _, head_length, body_length, _ = frames.HEADER.unpack_from(data, at)
            length = frames.HEADER.size + head_length + body_length
            if length > self._largest:
                raise frames.FrameError(f"a record of {length} bytes")
            if size - at < length:
                self._needed = length
                break
            at += length
        return at
