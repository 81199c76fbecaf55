"""Desired replicas out: each tick, decide for every served entity that something happened to, and ask for what differs.

A wake is not left to the next tick.
"""

import asyncio
import time
from collections.abc import Callable

from servery_common.contracts import subjects
from servery_common.contracts.routes import EndpointRoute, ServedEntityRoute
from servery_common.contracts.scaling import EntityScaling, ExplainScaling, GatewayWake, ScalingExplained
from servery_common.messaging.port import Bus
from servery_scaler.agenda import Agenda
from servery_scaler.autoscaler import ScaleDecision, ScalingPolicy
from servery_scaler.collector import LoadCollector
from servery_scaler.entity_watch import EntityWatch
from servery_scaler.operator_metrics import Desired, decisions, tick_duration
from servery_scaler.scale_requests import ScaleRequests, Wish


class Ticker:
    """Follows the routing snapshots to know what is served, the collector to know the load.

    ``clock`` returns monotonic seconds, ``wall_clock`` those since the epoch.
    """

    def __init__(
        self,
        bus: Bus,
        collector: LoadCollector,
        requests: ScaleRequests,
        policy: ScalingPolicy,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._collector = collector
        self._policy = policy
        self._clock = clock
        self._wall_clock = wall_clock
        self._requests = requests
        self._routes: dict[str, EndpointRoute] = {}
        self._entities: dict[str, tuple[EndpointRoute, ServedEntityRoute]] = {}
        """Those that are being served, by id."""
        self._watches: dict[str, EntityWatch] = {}
        self._agenda = Agenda()
        self._decided: dict[str, int] = {}
        """What was last decided, by served entity id."""
        self.caught_up = asyncio.Event()

    async def follow_routes(self) -> None:
        """Keep the routes up to date, for ever."""
        async for change in self._bus.kv_watch(subjects.ROUTES_BUCKET, EndpointRoute):
            if change.caught_up:
                for endpoint_id in change.missing:
                    self.routed(endpoint_id, None)
                self.caught_up.set()
            elif change.deleted:
                self.routed(change.key, None)
            elif change.value is not None:
                self.routed(change.key, change.value)

    async def run(self, tick_seconds: float) -> None:
        """Tick for ever."""
        while True:
            await asyncio.sleep(tick_seconds)
            with tick_duration.time():
                self.tick()

    def routed(self, endpoint_id: str, route: EndpointRoute | None) -> None:
        """Take a routing snapshot in; None: the endpoint is gone. Only what is being served is scaled."""
        before = self._routes.pop(endpoint_id, None)
        if route is not None:
            self._routes[endpoint_id] = route
        serving = route if route is not None and route.status == "serving" else None
        now = self._clock()
        for entity in serving.served_entities if serving else ():
            entity_id = entity.served_entity_id
            if entity_id not in self._watches:
                is_older = not self.caught_up.is_set()
                self._watches[entity_id] = EntityWatch(now, self._policy, entity, is_older=is_older)
            assert serving is not None
            self._entities[entity_id] = (serving, entity)
            self._agenda.look(entity_id)
        kept = {entity.served_entity_id for entity in serving.served_entities} if serving else set[str]()
        for entity in before.served_entities if before else ():
            if entity.served_entity_id not in kept:
                self._drop(entity.served_entity_id)

    def tick(self) -> None:
        """Decide for each served entity that is worth it, and ask the controller for what differs."""
        now = self._clock()
        for entity_id in self._collector.stirred():
            if entity_id in self._entities:
                self._agenda.look(entity_id)
        wishes: list[Wish] = []
        for entity_id in self._agenda.take(now):
            route, entity = self._entities[entity_id]
            watch = self._watches[entity_id]
            decision = self._decide(now, entity_id)
            if decision.desired_replicas != entity.desired_replicas:
                wishes.append(Wish(route, entity, decision))
            if watch.rests(entity, decision):
                self._agenda.rest(entity_id, self._to_zero_at(now, entity, decision))
        self._requests.want(wishes)

    async def woken(self, wake: GatewayWake) -> None:
        """Requests are held for want of a replica: decide at once."""
        self._collector.woken(wake)
        now = self._clock()
        wishes: list[Wish] = []
        for held in wake.entities:
            if held.served_entity_id not in self._entities:
                continue
            self._agenda.look(held.served_entity_id)
            route, entity = self._entities[held.served_entity_id]
            decision = self._decide(now, held.served_entity_id)
            if decision.desired_replicas > entity.desired_replicas:
                wishes.append(Wish(route, entity, decision))
        self._requests.want(wishes)

    async def explain(self, question: ExplainScaling) -> ScalingExplained:
        """Say what is seen of each served entity of an endpoint, and what follows from it."""
        route = self._routes.get(question.endpoint_id)
        if route is None or route.status != "serving":
            return ScalingExplained()
        now = self._clock()
        return ScalingExplained(
            entities=tuple(self._explain(now, entity) for entity in route.served_entities)
        )

    def _explain(self, now: float, entity: ServedEntityRoute) -> EntityScaling:
        entity_id = entity.served_entity_id
        decision = self._decide(now, entity_id, keep=False)
        # What was seen for the answer has to be put away again.
        self._agenda.look(entity_id)
        return EntityScaling(
            served_entity_id=entity_id,
            desired_replicas=decision.desired_replicas,
            reason=decision.reason,
            target_concurrency=round(self._watches[entity_id].target(entity), 3),
            seen=decision.seen,
            decided_at_ms=int(self._wall_clock() * 1000),
        )

    def _decide(self, now: float, entity_id: str, *, keep: bool = True) -> ScaleDecision:
        _, entity = self._entities[entity_id]
        watch = self._watches[entity_id]
        watch.see(now, entity, self._collector.demand(entity_id))
        decision = watch.decide(now, entity, self._collector.active_at(entity_id), keep=keep)
        if keep:
            change = decision.desired_replicas - entity.desired_replicas
            decisions.labels("up" if change > 0 else "down" if change < 0 else "none").inc()
            self._decided[entity_id] = decision.desired_replicas
        return decision

    def desired(self) -> list[Desired]:
        """Return what was last decided, and what the route has, for a scrape, which comes in a thread."""
        return [
            (
                (route.workspace_id, route.name, entity.name, entity_id),
                self._decided.get(entity_id, entity.desired_replicas),
                entity.desired_replicas,
            )
            for entity_id, (route, entity) in list(self._entities.items())
        ]

    def _to_zero_at(self, now: float, entity: ServedEntityRoute, decision: ScaleDecision) -> float | None:
        if entity.min_replicas > 0 or entity.desired_replicas == 0:
            return None
        left = entity.scale_to_zero_seconds - decision.seen["idle_seconds"]
        # Idle for long enough, and something is in the way: data that is missing, a window that is not full.
        return now + max(left, 1.0)

    def _drop(self, entity_id: str) -> None:
        self._entities.pop(entity_id, None)
        self._watches.pop(entity_id, None)
        self._decided.pop(entity_id, None)
        self._agenda.drop(entity_id)
        self._collector.forget(entity_id)
        self._requests.forget(entity_id)
