"""Cut what a NATS server sends into messages and lines. Pure; the protocol is documented at
https://docs.nats.io/reference/reference-protocols/nats-protocol.
"""

from collections.abc import Callable, Mapping

from nats.errors import ProtocolError

MAX_LINE_BYTES = 64 * 1024
"""The longest line a server sends is its INFO, of some kilobytes."""

MessageHandler = Callable[[memoryview, str, bytes, bytes], None]
"""Takes the payload, the reply subject (empty when there is none), the header block (empty when there is none) and the
subject the message came on."""


class WireReader:
    """Bytes in as they come; messages go to the handler of their subscription's id, in the same call.

    ``others`` gets everything else whole, as it came: PING, INFO, and messages nobody is named for.
    """

    __slots__ = ("_handlers", "_missing", "_others", "_pieces")

    def __init__(self, handlers: Mapping[bytes, MessageHandler], others: Callable[[bytes], None]) -> None:
        self._handlers = handlers
        self._others = others
        self._pieces: list[bytes] = []
        """What has begun to arrive."""
        self._missing = 0
        """Bytes until the message that has begun is whole; 0 when that is not known yet."""

    def feed(self, data: bytes) -> None:
        """Take in what has arrived. Raises ProtocolError when it is not what a NATS server sends."""
        if self._pieces:
            self._pieces.append(data)
            if self._missing > len(data):
                # The pieces of a long message are joined once, when all are there.
                self._missing -= len(data)
                return
            data = b"".join(self._pieces)
            self._pieces, self._missing = [], 0
        at = self._read(data)
        if at < len(data):
            self._pieces.append(data[at:] if at else data)

    def _read(self, data: bytes) -> int:
        """Hand on all that is whole; return where the rest begins."""
        at, size, view = 0, len(data), memoryview(data)
        while at < size:
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                if size - at > MAX_LINE_BYTES:
                    raise ProtocolError(f"a line of more than {MAX_LINE_BYTES} bytes")
                break
            begin = line_end + 2
            if data.startswith(b"MSG ", at):
                words, headers = data[at + 4 : line_end].split(), 0
            elif data.startswith(b"HMSG ", at):
                words = data[at + 5 : line_end].split()
                headers = _length(words.pop(-2)) if len(words) > 3 else 0
            else:
                self._others(data[at:begin])
                at = begin
                continue
            if not 3 <= len(words) <= 4:
                raise ProtocolError("a message whose line is not understood")
            end = begin + _length(words[-1])
            if end + 2 > size:
                self._missing = end + 2 - size
                break
            handler = self._handlers.get(words[1])
            if handler is None:
                self._others(data[at : end + 2])
            else:
                reply = words[2].decode() if len(words) == 4 else ""
                handler(view[begin + headers : end], reply, data[begin : begin + headers], words[0])
            at = end + 2
        return at


def _length(word: bytes) -> int:
    if not word.isdigit():
        raise ProtocolError("a length that is no number")
    return int(word)
