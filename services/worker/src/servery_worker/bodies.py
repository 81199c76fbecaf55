"""Bodies longer than one record: put together piece by piece, or sent within a window. Pure."""

from servery_common.contracts import frames

LARGEST_BODY_BYTES = 64 * 1024 * 1024
"""Longest body taken in. The gateway's limit is lower; this one only protects the worker's memory."""

COPIED_BYTES = 64 * 1024
"""Bodies up to this long are copied out of what they arrived in."""


class Incoming:
    """A body that arrives in pieces."""

    def __init__(self, total: int, first: bytes | memoryview) -> None:
        if not 0 <= total <= LARGEST_BODY_BYTES:
            raise frames.FrameError(f"a body of {total} bytes")
        self._total = total
        self.pieces: list[bytes | memoryview] = []
        """What is here so far. Never put together: that takes milliseconds, in which nothing else is read or sent."""
        self._received = 0
        # A view would hold on to all that arrived with it.
        self.add(bytes(first) if total <= COPIED_BYTES else first)

    def add(self, piece: bytes | memoryview) -> None:
        """Append the next piece. Raises FrameError when the body gets longer than announced."""
        if self._received + len(piece) > self._total:
            raise frames.FrameError(f"more than the announced {self._total} bytes")
        self._received += len(piece)
        self.pieces.append(piece)

    @property
    def complete(self) -> bool:
        """All of it is here."""
        return self._received == self._total


class Outgoing:
    """A body that is sent in pieces, at most ``WINDOW_BYTES`` of it unacknowledged."""

    def __init__(self, body: bytes | memoryview) -> None:
        self._body = memoryview(body)
        self._sent = 0
        self._acknowledged = 0

    def acknowledge(self, count: int) -> None:
        """The receiver took in ``count`` more bytes. A count that cannot be is cut to what was sent."""
        self._acknowledged = min(self._sent, self._acknowledged + max(0, count))

    def pieces(self) -> list[memoryview]:
        """The pieces that may be sent now."""
        pieces: list[memoryview] = []
        while self._sent < len(self._body) and self._sent - self._acknowledged < frames.WINDOW_BYTES:
            piece = self._body[self._sent : self._sent + frames.CHUNK_BYTES]
            self._sent += len(piece)
            pieces.append(piece)
        return pieces

    @property
    def complete(self) -> bool:
        """All of it was sent and taken in."""
        return self._acknowledged == len(self._body)
