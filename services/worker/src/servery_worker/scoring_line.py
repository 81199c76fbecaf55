"""Stands for the connection scoring frames travel on, so that another one may take its place.

Nothing is lost or doubled by that: the new one receives before the old one stops (``handover``), and nothing is sent on
the new one before all that was sent on the old one has arrived, so that the parts of an answer stay in their order.
"""

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import structlog
from nats.errors import Error as NatsError

from servery_common.messaging.inference import InferenceClient, guarded
from servery_common.messaging.wire import MessageHandler
from servery_common.service import wait_any
from servery_worker.handover import Handover

log = structlog.get_logger(__name__)

OVERLAP_SECONDS = 0.25
"""So long has the server to hand a message to one connection that it took before the other one came, or went: it hands
it to one after the other."""
FLUSH_SECONDS = 2


class ScoringLine:
    """What replicas use of an ``InferenceClient``, whichever it is at the moment."""

    def __init__(self, client: InferenceClient) -> None:
        self.disconnect_callbacks: list[Callable[[], None]] = []
        self.reconnect_callbacks: list[Callable[[], None]] = []
        self._handlers: dict[str, MessageHandler] = {}
        self._changing = asyncio.Lock()
        self._losses = 0
        """Of the connections before."""
        self._use(client)

    async def receive(self, subject: str, handler: MessageHandler) -> None:
        """See InferenceClient."""
        async with self._changing:
            await self._client.receive(subject, handler)
            self._handlers[subject] = handler

    async def ignore(self, subject: str) -> None:
        """See InferenceClient."""
        async with self._changing:
            self._handlers.pop(subject, None)
            await self._client.ignore(subject)

    async def flush(self) -> None:
        """Return when all that was sent has reached the server. Raises nats.errors.Error."""
        await self._client.flush()

    @property
    def is_connected(self) -> bool:
        """Whether messages go out right now."""
        return self._client.is_connected

    @property
    def unsent(self) -> int:
        """See InferenceClient."""
        return self._client.unsent

    @property
    def losses(self) -> int:
        """See InferenceClient. That another one takes its place is no loss."""
        return self._losses + self._client.losses

    async def replace(self, fresh: InferenceClient, hold: Callable[[], AbstractContextManager[None]]) -> None:
        """Receive and send on ``fresh`` from now on; the old one is the caller's to close. To be called once at a time.

        Nothing may be sent within ``hold``. Raises nats.errors.Error or OSError when ``fresh`` cannot be used: then
        everything is as it was.
        """
        async with self._changing:
            old, lost = self._client, asyncio.Event()
            old.disconnect_callbacks.append(lost.set)
            handovers = {subject: Handover(guarded(handler)) for subject, handler in self._handlers.items()}
            try:
                for subject, handover in handovers.items():
                    old.redirect(subject, handover.from_old)
                    await fresh.receive(subject, handover.from_new)
                await fresh.flush(FLUSH_SECONDS)
                await wait_any(lost, OVERLAP_SECONDS)
                if fresh.losses or not fresh.is_connected:
                    raise NatsError("the new connection was lost")
            except BaseException:
                for subject, handler in self._handlers.items():
                    old.redirect(subject, handler)
                raise
            finally:
                old.disconnect_callbacks.remove(lost.set)
            with hold():
                arrived = await _finish(old)
                self._losses += old.losses + (not arrived)
                self._use(fresh)
                for handover in handovers.values():
                    handover.end()
                if not arrived or fresh.losses:
                    self._tell(self.disconnect_callbacks)
            # The new one may be behind: what it has yet to bring may have come with the old one.
            await asyncio.sleep(OVERLAP_SECONDS)
            with contextlib.suppress(NatsError, OSError):
                await fresh.flush(FLUSH_SECONDS)
            for subject, handler in self._handlers.items():
                fresh.redirect(subject, handler)

    def _use(self, client: InferenceClient) -> None:
        self._client = client
        self.send = client.send
        client.disconnect_callbacks.append(lambda: self._tell_of(client, self.disconnect_callbacks))
        client.reconnect_callbacks.append(lambda: self._tell_of(client, self.reconnect_callbacks))

    def _tell_of(self, client: InferenceClient, callbacks: list[Callable[[], None]]) -> None:
        if client is self._client:
            self._tell(callbacks)

    def _tell(self, callbacks: list[Callable[[], None]]) -> None:
        for callback in list(callbacks):
            callback()


async def _finish(old: InferenceClient) -> bool:
    """Stop receiving; False when it is not known that all that was under way has arrived."""
    if not old.is_connected:
        return False
    try:
        await old.finish()
    except (NatsError, OSError) as error:
        log.warning("inference_connection_not_finished", error=repr(error))
        return False
    return True
