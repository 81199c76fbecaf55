"""Ask the controller for other replica counts, without asking the same again and again."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import structlog

from servery_common.contracts import subjects
from servery_common.contracts.routes import EndpointRoute, ServedEntityRoute
from servery_common.contracts.scaling import ScaleAnswer, ScaleRequest
from servery_common.errors import ServeryError
from servery_common.messaging.port import Bus
from servery_scaler.autoscaler import ScaleDecision
from servery_scaler.operator_metrics import requests

log = structlog.get_logger()

SCALE_SECONDS = 3.0
"""The controller answers a scale request from one indexed update."""
REPEAT_SECONDS = 2.0
"""The route shows what was accepted within a fraction of a second. Until it does, ask again after so long."""
AT_ONCE = 32
"""Requests under way: a change of very many endpoints must not fill the controller's queue."""


class Wish(NamedTuple):
    """A decision that the route does not show yet."""

    route: EndpointRoute
    entity: ServedEntityRoute
    decision: ScaleDecision


class _Asked(NamedTuple):
    at: float
    desired: int
    before: int
    accepted: bool


class ScaleRequests:
    """``clock`` returns monotonic seconds."""

    def __init__(self, bus: Bus, clock: Callable[[], float] = time.monotonic) -> None:
        self._bus = bus
        self._clock = clock
        self._asked: dict[str, _Asked] = {}
        """By served entity id."""
        self._under_way: set[str] = set()
        self._wishes: asyncio.Queue[Wish] = asyncio.Queue()
        self._room = asyncio.Semaphore(AT_ONCE)

    def want(self, wishes: Iterable[Wish]) -> None:
        """Ask soon for those that were not just asked for. What is slow to be answered holds up no other."""
        for wish in wishes:
            if self._is_new(wish):
                self._under_way.add(wish.entity.served_entity_id)
                self._wishes.put_nowait(wish)

    async def run(self) -> None:
        """Ask for ever."""
        async with asyncio.TaskGroup() as asking:
            while True:
                wish = await self._wishes.get()
                await self._room.acquire()
                asking.create_task(self._ask(wish))

    def forget(self, served_entity_id: str) -> None:
        """It is served no more."""
        self._asked.pop(served_entity_id, None)

    def _is_new(self, wish: Wish) -> bool:
        entity_id = wish.entity.served_entity_id
        if entity_id in self._under_way:
            return False
        asked = self._asked.get(entity_id)
        return (
            asked is None
            or (asked.desired, asked.before) != (wish.decision.desired_replicas, wish.entity.desired_replicas)
            or self._clock() - asked.at >= REPEAT_SECONDS
        )

    async def _ask(self, wish: Wish) -> None:
        entity, decision = wish.entity, wish.decision
        entity_id = entity.served_entity_id
        request = ScaleRequest(
            endpoint_id=wish.route.endpoint_id,
            served_entity_id=entity_id,
            desired_replicas=decision.desired_replicas,
            reason=decision.reason,
            before=entity.desired_replicas,
            seen=decision.seen,
        )
        try:
            answer = await self._bus.request(
                subjects.controller_scale(), request, ScaleAnswer, timeout=SCALE_SECONDS
            )
        except ServeryError as error:
            requests.labels("failed").inc()
            log.warning("scale_postponed", served_entity_id=entity_id, reason=error.message)
            return
        finally:
            self._room.release()
            self._under_way.discard(entity_id)
        requests.labels("accepted" if answer.accepted else "declined").inc()
        before = self._asked.get(entity_id)
        asked = _Asked(self._clock(), decision.desired_replicas, entity.desired_replicas, answer.accepted)
        self._asked[entity_id] = asked
        if before is None or before[1:] != asked[1:]:
            log.info(
                "scale_requested",
                endpoint=wish.route.name,
                served_entity=entity.name,
                before=entity.desired_replicas,
                desired=decision.desired_replicas,
                reason=decision.reason,
                accepted=answer.accepted,
            )
