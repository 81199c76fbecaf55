"""Take build orders: write them down, say that there is one, no more."""

import asyncio

import structlog

from servery_builder.store import BuildStore
from servery_common.contracts import subjects
from servery_common.contracts.builds import BuildRequested
from servery_common.messaging.port import Bus
from servery_common.tracing import inject

log = structlog.get_logger(__name__)


class BuildOrders:
    """The work queue of build orders."""

    def __init__(self, store: BuildStore, ordered: asyncio.Event) -> None:
        self._store = store
        self._ordered = ordered

    async def accept(self, order: BuildRequested) -> None:
        """Store an order; a repeated one changes nothing."""
        new = await self._store.insert(order, inject())
        log.info(
            "build_ordered",
            build_id=order.build_id,
            endpoint_id=order.endpoint_id,
            model=order.model_name,
            version=order.model_version,
            new=new,
        )
        self._ordered.set()

    async def consume(self, bus: Bus) -> None:
        """Accept orders for ever."""
        await bus.consume(
            subjects.JOBS_STREAM,
            subjects.BUILDER_JOBS_DURABLE,
            subjects.ALL_BUILD_JOBS,
            {BuildRequested: self.accept},
        )
