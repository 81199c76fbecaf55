"""RESULT records of one replica: short ones at once, long ones in pieces as the gateway takes them in."""

import asyncio

import structlog

from servery_common.contracts import frames
from servery_worker.bodies import Outgoing
from servery_worker.replies import Replies

log = structlog.get_logger(__name__)

STALLED_SECONDS = 30.0
"""An answer of which the gateway took nothing for this long is dropped: the gateway is gone."""


class Answers:
    """Sends results and keeps the rest of those that are under way."""

    def __init__(self, replies: Replies) -> None:
        self._replies = replies
        self._under_way: dict[tuple[str, int], Outgoing] = {}
        self._waiting: dict[tuple[str, int], tuple[bytes, bytes | memoryview]] = {}
        """Heads and bodies of long answers of which nothing was sent yet."""
        self._timers: dict[tuple[str, int], asyncio.TimerHandle] = {}
        self._none = asyncio.Event()
        self._none.set()

    def send(self, key: tuple[str, int], head: bytes, body: bytes | memoryview) -> None:
        """Send a result with this packed head to ``(reply subject, request id)``."""
        reply, number = key
        if len(body) <= frames.CHUNK_BYTES:
            self._replies.send(reply, frames.start(frames.RESULT, number, head, len(body)), body)
            return
        self._none.clear()
        self._waiting[key] = head, body
        self._begin_more(reply)

    def on_window(self, key: tuple[str, int], count: int) -> None:
        """The gateway took in ``count`` bytes of an answer."""
        outgoing = self._under_way.get(key)
        if outgoing is not None:
            outgoing.acknowledge(count)
            self._send_chunks(key, outgoing.pieces())
            if outgoing.complete:
                self.drop(key)
            else:
                self._expect_window(key)

    def drop(self, key: tuple[str, int]) -> None:
        """Nobody wants the rest of this answer."""
        self._waiting.pop(key, None)
        self._under_way.pop(key, None)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        self._begin_more(key[0])
        if not self._under_way and not self._waiting:
            self._none.set()

    def drop_all(self) -> None:
        """The connection was lost, and pieces with it."""
        for key in [*self._waiting, *self._under_way]:
            self.drop(key)

    async def sent(self) -> None:
        """Wait until no answer is under way."""
        await self._none.wait()

    def _begin_more(self, reply: str) -> None:
        """Begin with an answer to this gateway when it has taken in the one before."""
        if any(key[0] == reply for key in self._under_way):
            return
        key = next((key for key in self._waiting if key[0] == reply), None)
        if key is None:
            return
        head, body = self._waiting.pop(key)
        outgoing = self._under_way[key] = Outgoing(body)
        first, *more = outgoing.pieces()
        announced = frames.pack_head(frames.read_head(head) | {"total": len(body)})
        self._replies.send(reply, frames.start(frames.RESULT, key[1], announced, len(first)), first)
        self._send_chunks(key, more)
        self._expect_window(key)

    def _send_chunks(self, key: tuple[str, int], pieces: list[memoryview]) -> None:
        for piece in pieces:
            self._replies.send(key[0], frames.start(frames.CHUNK, key[1], b"", len(piece)), piece)

    def _expect_window(self, key: tuple[str, int]) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(STALLED_SECONDS, self._on_stalled, key)

    def _on_stalled(self, key: tuple[str, int]) -> None:
        log.warning("answer_stalled", reply=key[0], id=key[1], seconds=STALLED_SECONDS)
        self.drop(key)
