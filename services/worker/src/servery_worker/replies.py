"""Records on their way back to the gateways: those of one event-loop tick for one gateway leave as one message."""

import asyncio
from collections import defaultdict
from collections.abc import Callable

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError

from servery_common.contracts import frames

log = structlog.get_logger(__name__)

LARGEST_MESSAGE_BYTES = frames.CHUNK_BYTES + 64 * 1024
"""A full chunk with its head, still well below NATS' default limit of 1 MiB."""


class Replies:
    """Collects records by reply subject and publishes them."""

    def __init__(self, nats: Client) -> None:
        self._nats = nats
        self._waiting: defaultdict[str, list[bytes]] = defaultdict(list)
        self._afterwards: list[Callable[[], None]] = []
        self._some = asyncio.Event()
        self._none = asyncio.Event()
        self._none.set()

    def send(self, subject: str, record: bytes) -> None:
        """Send a record soon; never blocks. Lost without connection: the gateway has given up by then."""
        self._waiting[subject].append(record)
        self._some.set()
        self._none.clear()

    def after_sent(self, call: Callable[[], None]) -> None:
        """Call this soon, when what was sent so far is with the system: it goes out even if this process is frozen."""
        self._afterwards.append(call)
        self._some.set()

    async def run(self) -> None:
        """Publish for ever."""
        while True:
            await self._some.wait()
            # Cleared before the first publish: a record that arrives while it waits must not be forgotten.
            self._some.clear()
            waiting, self._waiting = self._waiting, defaultdict(list)
            afterwards, self._afterwards = self._afterwards, []
            for subject, records in waiting.items():
                for message in packed(records, LARGEST_MESSAGE_BYTES):
                    await self._publish(subject, message)
            if afterwards:
                # The connection writes in a task of its own, which has its turn now.
                await asyncio.sleep(0)
                for call in afterwards:
                    call()
            if not self._waiting:
                self._none.set()

    async def flush(self, timeout: float) -> None:
        """Return when everything sent so far has reached the server, or after ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._none.wait()
                await self._nats.flush()
        except (TimeoutError, NatsError):
            log.warning("replies_not_flushed", subjects=len(self._waiting))

    async def _publish(self, subject: str, message: bytes) -> None:
        try:
            await self._nats.publish(subject, message)
        except (NatsError, OSError) as error:
            log.warning("reply_lost", subject=subject, bytes=len(message), error=repr(error))


def packed(records: list[bytes], limit: int) -> list[bytes]:
    """Join neighbouring records into messages of at most ``limit`` bytes, in order; a longer one stays alone."""
    messages: list[bytes] = []
    current: list[bytes] = []
    size = 0
    for record in records:
        if current and size + len(record) > limit:
            messages.append(b"".join(current))
            current, size = [], 0
        current.append(record)
        size += len(record)
    if current:
        messages.append(b"".join(current))
    return messages
