"""A streamed answer on its way from a replica to a client: pieces are put in by the transport and taken out to be sent.

The replica may have a window of the answer under way (``frames.STREAM_WINDOW_BYTES``), which is all that is ever held
here, beside two pieces in the server's buffer for the connection: it is opened again as the server takes the bytes,
which it does when the client has read what it was given before.
"""

import asyncio
import time
from collections.abc import Callable

from servery_common.contracts import frames
from servery_gateway.transport import Outcome

ACKNOWLEDGE_BYTES = frames.STREAM_WINDOW_BYTES // 4
"""Taken bytes are reported when they are this many: an answer of a few short items needs no report at all."""
HANDED_OUT_BYTES = 64 * 1024
"""At most so many bytes are handed out at once: what the server takes before it waits for the client, so that a slow
one is seen to read."""


class BrokenOff(Exception):
    """The model failed in the middle of its answer; ``outcome`` is the error as it would have been answered."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"the answer broke off with status {outcome.status}")
        self.outcome = outcome


class AnswerStream:
    """One streamed answer.

    ``taken`` is called each time the client has taken something, with the bytes to report to the replica: mostly 0.
    """

    def __init__(self, status: int, content_type: str, taken: Callable[[int], None]) -> None:
        self.status = status
        self.content_type = content_type
        self.ended = False
        self.ended_at: float | None = None
        """When its last byte came from the replica (``time.perf_counter``); the client may still be reading."""
        self.predict_ms: float | None = None
        """As in Outcome; known at the end."""
        self._taken = taken
        self._held = bytearray()
        self._failure: Exception | None = None
        self._handed_out = 0
        self._unreported = 0
        self._changed = asyncio.Event()

    def put(self, piece: bytes) -> None:
        """The replica sent more. Nothing is added to an answer that has ended."""
        if not self.ended:
            self._held += piece
            self._changed.set()

    def end(self, failure: Exception | None = None) -> None:
        """The answer is whole, or it broke off. Only the first end counts."""
        if not self.ended:
            self.ended = True
            self.ended_at = time.perf_counter()
            self._failure = failure
            self._changed.set()

    async def next(self) -> bytes | None:
        """Return the next bytes, waiting for some; None at the end. Raises what broke the answer off.

        Asking for more says that the client has taken what was returned before.
        """
        self._report()
        while not self._held:
            if self.ended:
                if self._failure is not None:
                    raise self._failure
                return None
            self._changed.clear()
            await self._changed.wait()
        content = bytes(self._held[:HANDED_OUT_BYTES])
        del self._held[:HANDED_OUT_BYTES]
        self._handed_out = len(content)
        return content

    def _report(self) -> None:
        if self._handed_out and not self.ended:
            self._unreported += self._handed_out
            reported = self._unreported if self._unreported >= ACKNOWLEDGE_BYTES else 0
            self._unreported -= reported
            self._taken(reported)
        self._handed_out = 0
