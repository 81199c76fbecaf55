"""The worker's two connections to NATS, and how others take their place.

The new ones are made and do all that the old ones do before those are let go. Orders may come twice meanwhile, which is
as good as once (a long log that is read at that moment may have to be read again); scoring frames do not
(``scoring_line``).
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack

import structlog
from nats.errors import Error as NatsError

from servery_common.contracts.message import Message
from servery_common.messaging.bus import connect_bus
from servery_common.messaging.connection import connect_inference
from servery_common.messaging.inference import InferenceClient
from servery_common.messaging.port import Bus, Signals
from servery_common.settings import NatsSettings
from servery_worker.scoring_line import ScoringLine

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 15.0
"""Others are given up after so long; the old ones are still there."""


class Links(Signals):
    """Made by ``open_links``."""

    def __init__(
        self, settings: NatsSettings, bus: Bus, inference: InferenceClient, opened: AsyncExitStack
    ) -> None:
        self.scoring = ScoringLine(inference)
        self._settings = settings
        self._bus = bus
        self._opened = opened
        self._serve: list[Callable[[Bus], Awaitable[None]]] = []
        self._changing = asyncio.Lock()
        self._kept = False

    @property
    def bus(self) -> Bus:
        """The present bus, for one request. Who keeps it for longer uses ``signal`` and ``serve``."""
        return self._bus

    async def signal(self, subject: str, message: Message) -> None:
        """Implement Signals."""
        await self._bus.signal(subject, message)

    async def serve(self, serve: Callable[[Bus], Awaitable[None]]) -> None:
        """Have this called with the present bus, and with each that takes its place, before it does."""
        await serve(self._bus)
        self._serve.append(serve)

    async def replace(self, hold: Callable[[], AbstractContextManager[None]]) -> None:
        """Connect anew, with what the settings' files hold now, and let the old connections go.

        ``hold``: see ``ScoringLine.replace``. Raises TimeoutError, nats.errors.Error or OSError when there are no new
        ones: then everything is as it was.
        """
        async with AsyncExitStack() as opened:
            async with asyncio.timeout(CONNECT_SECONDS):
                bus, inference = await _connect(self._settings, opened)
            async with self._changing:
                if self._kept:
                    return
                for serve in self._serve:
                    await serve(bus)
                await self.scoring.replace(inference, hold)
                self._bus = bus
                before, self._opened = self._opened, opened.pop_all()
        try:
            await before.aclose()
        except (NatsError, OSError) as error:
            log.warning("old_connections_not_closed", error=repr(error))

    async def keep(self) -> None:
        """Replace nothing from now on; returns when what was being replaced is."""
        async with self._changing:
            self._kept = True

    async def close(self) -> None:
        """Close both."""
        await self._opened.aclose()


async def open_links(settings: NatsSettings) -> Links:
    """Connect, waiting for NATS as long as it takes; the caller closes it."""
    async with AsyncExitStack() as opened:
        bus, inference = await _connect(settings, opened)
        return Links(settings, bus, inference, opened.pop_all())


async def _connect(settings: NatsSettings, opened: AsyncExitStack) -> tuple[Bus, InferenceClient]:
    bus = await opened.enter_async_context(connect_bus(settings, name="worker", declare=False))
    inference = await connect_inference(settings, name="worker-inference", on_disconnect=_on_disconnect)
    opened.push_async_callback(inference.close)
    return bus, inference


def _on_disconnect() -> None:
    # Gateways notice the same loss and give up what they sent; what runs here ends by itself.
    log.warning("inference_connection_lost")
