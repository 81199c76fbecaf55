"""Records on their way back to the gateways: those of one event-loop tick for one gateway leave as one message."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator

import structlog
from nats.errors import Error as NatsError

from servery_common.contracts import frames
from servery_worker.scoring_line import ScoringLine

log = structlog.get_logger(__name__)

LARGEST_MESSAGE_BYTES = frames.CHUNK_BYTES + 64 * 1024
"""A full chunk with its head, still well below NATS' default limit of 1 MiB."""
UNSENT_SECONDS = 0.001
COMPANY_SECONDS = 0.01

Part = bytes | memoryview
Sent = Callable[[bool], None]


class Replies:
    """Collects records by reply subject and sends them."""

    def __init__(self, connection: ScoringLine) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._waiting: defaultdict[str, list[tuple[Part, ...]]] = defaultdict(list)
        self._accepted: defaultdict[str, list[int]] = defaultdict(list)
        self._on_accepted: list[Sent] = []
        self._sending_soon = False
        self._holding = False
        self._send_later: asyncio.TimerHandle | None = None
        self._held: list[tuple[str, tuple[Part, ...]]] = []
        connection.reconnect_callbacks.append(self._on_return)

    def send(self, subject: str, *record: Part) -> None:
        """Send a record, given in parts, soon. Lost without connection: the gateway has given up by then."""
        self._waiting[subject].append(record)
        self._send_soon()

    def accept(self, subject: str, id: int, then: Sent, *, soon: bool = True) -> None:
        """Say that a request was taken: those of one turn share a record, before all others.

        Unless ``soon`` it waits for a message that is sent anyway, for ``COMPANY_SECONDS`` at most.
        ``then`` is called with True when that is with the system: it goes out even if this process is frozen. With
        False when it will not: the connection was lost.
        """
        self._accepted[subject].append(id)
        self._on_accepted.append(then)
        if soon:
            self._send_soon()
        elif self._send_later is None:
            self._send_later = self._loop.call_later(COMPANY_SECONDS, self._send)

    def send_or_hold(self, subject: str, *record: Part) -> None:
        """Send a record now, or when there is a connection again."""
        if self._connection.is_connected:
            self.send(subject, *record)
        else:
            self._held.append((subject, record))

    async def flush(self, timeout: float) -> None:
        """Return when everything sent so far has reached the server, or after ``timeout`` seconds."""
        self._send()
        try:
            async with asyncio.timeout(timeout):
                await self._connection.flush()
        except (TimeoutError, NatsError):
            log.warning("replies_not_flushed")

    @contextlib.contextmanager
    def hold(self) -> Generator[None]:
        """Send nothing meanwhile: what comes waits until the end of it."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
            if self._connection.is_connected:
                self._on_return()
            self._send_soon()

    def _on_return(self) -> None:
        held, self._held = self._held, []
        for subject, record in held:
            self.send(subject, *record)

    def _send_soon(self) -> None:
        if not self._sending_soon:
            self._sending_soon = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        self._sending_soon = False
        if self._send_later is not None:
            self._send_later.cancel()
            self._send_later = None
        if self._holding:
            return
        waiting, self._waiting = self._waiting, defaultdict(list)
        for subject, ids in self._accepted.items():
            waiting[subject].insert(0, (frames.accepted(ids),))
        self._accepted.clear()
        on_accepted, self._on_accepted = self._on_accepted, []
        losses = self._connection.losses
        for subject, records in waiting.items():
            for message in packed(records, LARGEST_MESSAGE_BYTES):
                try:
                    self._connection.send(subject, message)
                except NatsError as error:
                    losses = -1
                    log.warning(
                        "reply_lost", subject=subject, bytes=sum(map(len, message)), error=repr(error)
                    )
        if on_accepted:
            # The event loop writes at the end of its turn.
            self._loop.call_soon(self._when_written, on_accepted, losses)

    def _when_written(self, calls: list[Sent], losses: int) -> None:
        if losses == self._connection.losses and self._connection.unsent:
            self._loop.call_later(UNSENT_SECONDS, self._when_written, calls, losses)
            return
        for call in calls:
            call(losses == self._connection.losses)


def packed(records: Iterable[tuple[Part, ...]], limit: int) -> Iterator[list[Part]]:
    """Join neighbouring records into messages of at most ``limit`` bytes, in order; a longer one stays alone."""
    message: list[Part] = []
    size = 0
    for record in records:
        length = sum(map(len, record))
        if message and size + length > limit:
            yield message
            message, size = [], 0
        message += record
        size += length
    if message:
        yield message
