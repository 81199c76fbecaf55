"""Desired replicas out: each tick, decide for every served entity and ask the controller for what differs."""

import asyncio

import structlog

from servery_common.contracts import subjects
from servery_common.contracts.routes import EndpointRoute, ServedEntityRoute
from servery_common.contracts.scaling import ScaleAnswer, ScaleRequest
from servery_common.errors import ServeryError
from servery_common.messaging.port import Bus
from servery_scaler.autoscaler import ScalingSpec, decide
from servery_scaler.collector import LoadCollector

log = structlog.get_logger()

SCALE_SECONDS = 3.0
"""The controller answers a scale request from one indexed update."""


class Ticker:
    """Follows the routing snapshots to know what is served, the collector to know the load."""

    def __init__(self, bus: Bus, collector: LoadCollector, tick_seconds: float) -> None:
        self._bus = bus
        self._collector = collector
        self._tick_seconds = tick_seconds
        self._routes: dict[str, EndpointRoute] = {}
        self.caught_up = asyncio.Event()

    async def follow_routes(self) -> None:
        """Keep the routes up to date, for ever."""
        async for change in self._bus.kv_watch(subjects.ROUTES_BUCKET, EndpointRoute):
            if change.caught_up:
                self.caught_up.set()
            elif change.deleted:
                self._routes.pop(change.key, None)
            elif change.value is not None:
                self._routes[change.key] = change.value

    async def run(self) -> None:
        """Tick for ever."""
        while True:
            await asyncio.sleep(self._tick_seconds)
            await self.tick()

    async def tick(self) -> None:
        """Decide once for every served entity."""
        for route in list(self._routes.values()):
            for entity in route.served_entities:
                await self._scale(route, entity)

    async def _scale(self, route: EndpointRoute, entity: ServedEntityRoute) -> None:
        spec = ScalingSpec(entity.min_replicas, entity.max_replicas, entity.slots_per_replica)
        decision = decide(spec, self._collector.demand(entity.served_entity_id))
        if decision.desired_replicas == entity.desired_replicas:
            return
        request = ScaleRequest(
            endpoint_id=route.endpoint_id,
            served_entity_id=entity.served_entity_id,
            desired_replicas=decision.desired_replicas,
            reason=decision.reason,
        )
        try:
            answer = await self._bus.request(
                subjects.controller_scale(), request, ScaleAnswer, timeout=SCALE_SECONDS
            )
        except ServeryError as error:
            log.warning("scale_postponed", served_entity_id=entity.served_entity_id, reason=error.message)
            return
        log.info(
            "scale_requested",
            endpoint=route.name,
            served_entity=entity.name,
            before=entity.desired_replicas,
            desired=decision.desired_replicas,
            reason=decision.reason,
            accepted=answer.accepted,
        )
