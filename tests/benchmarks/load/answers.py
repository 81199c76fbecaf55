"""Cut what a server sends into answers. Pure."""

from typing import NamedTuple


class HttpAnswer(NamedTuple):
    """One answer."""

    status: int
    body: bytes
    retry_after: int | None = None


class AnswerParser:
    """Bytes of one connection in, answers out: Content-Length and chunked bodies, however the bytes are cut."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[HttpAnswer]:
        """Return the answers completed by ``data``."""
        self._buffer = self._buffer + data if self._buffer else data
        answers: list[HttpAnswer] = []
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            body_at = end + 4
            length = _header(head, b"\r\ncontent-length:")
            if length is not None:
                after = body_at + int(length)
                if len(self._buffer) < after:
                    break
                body = self._buffer[body_at:after]
            else:
                chunked = _chunks(self._buffer, body_at)
                if chunked is None:
                    break
                body, after = chunked
            retry_after = _header(head, b"\r\nretry-after:")
            answers.append(
                HttpAnswer(int(head[9:12]), body, None if retry_after is None else int(retry_after))
            )
            self._buffer = self._buffer[after:]
        return answers


def _header(head: bytes, name: bytes) -> bytes | None:
    at = head.find(name)
    if at < 0:
        return None
    end = head.find(b"\r\n", at + 2)
    return head[at + len(name) : end if end >= 0 else len(head)].strip()


def _chunks(buffer: bytes, at: int) -> tuple[bytes, int] | None:
    """A chunked body and where it ends; None when it is not whole."""
    pieces: list[bytes] = []
    while (end := buffer.find(b"\r\n", at)) >= 0:
        size = int(buffer[at:end], 16)
        at = end + 2 + size + 2
        if len(buffer) < at:
            return None
        if size == 0:
            return b"".join(pieces), at
        pieces.append(buffer[end + 2 : at - 2])
    return None
