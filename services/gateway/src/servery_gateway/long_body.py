"""Bytes that came in pieces and stay in them. Pure.

A body of many megabytes that is put together costs its event loop several copies of itself, each of milliseconds in
which nothing else is read or answered.
"""

from bisect import bisect_right

from servery_common.contracts import frames

PIECE_BYTES = frames.CHUNK_BYTES - 2048
"""Longest piece that is sent on in one record: leaves room for the record's header and head. Bodies up to this long are
put together."""
SHORTEST_PIECE_BYTES = 64 * 1024
"""Shorter ones are joined with what comes next: a body sent byte by byte would take many times its length, and each
view holds on to all it is a view of."""


class LongBody:
    """Grows at its end; ``len`` is the number of bytes, ``bytes`` puts it together."""

    __slots__ = ("_begins", "_last", "_length", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[bytes | bytearray | memoryview] = []
        self._begins: list[int] = []
        """Where each piece begins."""
        self._last = bytearray()
        """What is not enough for a piece yet."""
        self._length = 0

    def append(self, piece: bytes | memoryview) -> None:
        """Add to the end."""
        if not self._last and len(piece) >= SHORTEST_PIECE_BYTES:
            self._add(piece)
        else:
            self._last += piece
            if len(self._last) >= SHORTEST_PIECE_BYTES:
                self._add(self._last)
                self._last = bytearray()
        self._length += len(piece)

    def part(self, start: int, stop: int) -> list[memoryview]:
        """Return views that together are the bytes from ``start`` to before ``stop``."""
        if self._last:
            self._add(self._last)
            self._last = bytearray()
        views: list[memoryview] = []
        index = bisect_right(self._begins, start) - 1
        while start < min(stop, self._length):
            begin = self._begins[index]
            view = memoryview(self._pieces[index])[start - begin : stop - begin]
            views.append(view)
            start += len(view)
            index += 1
        return views

    def __len__(self) -> int:
        return self._length

    def __bytes__(self) -> bytes:
        return b"".join(self.part(0, self._length))

    def _add(self, piece: bytes | bytearray | memoryview) -> None:
        self._begins.append(self._begins[-1] + len(self._pieces[-1]) if self._pieces else 0)
        self._pieces.append(piece)
