"""The use cases that change how many replicas a served entity has. Each keeps its decision in its transaction.

Any controller does them; the one that leads, perhaps another, hears of each by a signal and looks at the endpoint.
"""

import structlog

from servery_common.contracts import subjects
from servery_common.contracts.routes import EndpointsChanged
from servery_common.contracts.scaling import HeldRequests, ScaleAnswer, ScaleRequest
from servery_common.messaging.port import Bus
from servery_common.postgres.pool import Pool
from servery_controller.domain.scaling import DecidedBy, ScalingDecision, clamp, woken_because
from servery_controller.scaling import scaling_store

log = structlog.get_logger()


class Scaling:
    """The use cases."""

    def __init__(self, pool: Pool, bus: Bus) -> None:
        self._pool = pool
        self._bus = bus

    async def scale(self, request: ScaleRequest) -> ScaleAnswer:
        """Set a count, within what the served entity may have. Repeating it changes nothing."""
        entity_id = request.served_entity_id
        async with self._pool.acquire() as conn, conn.transaction():
            counts = await scaling_store.lock_counts(conn, request.endpoint_id, entity_id)
            if counts is None:
                return ScaleAnswer(accepted=False)
            if request.before is not None and request.before != counts.desired:
                # Decided on a route that is older than the count: the scaler decides again when it has the new one.
                return ScaleAnswer(accepted=False, desired_replicas=counts.desired)
            after, reason = clamp(request.desired_replicas, counts.low, counts.high, request.reason)
            if after == counts.desired:
                return ScaleAnswer(accepted=True, desired_replicas=after)
            decision = ScalingDecision(
                served_entity_id=entity_id,
                served_entity_name=counts.name,
                config_version=counts.config_version,
                before=counts.desired,
                after=after,
                reason=reason,
                decided_by=DecidedBy.SCALER,
                seen=request.seen,
            )
            await scaling_store.set_desired(conn, entity_id, after)
            await scaling_store.keep(conn, request.endpoint_id, decision)
        await self._tell(request.endpoint_id, decision)
        return ScaleAnswer(accepted=True, desired_replicas=after)

    async def wake(self, asked: HeldRequests) -> bool:
        """See to it that an entity at zero gets a replica. Returns whether it was this call that did."""
        async with self._pool.acquire() as conn, conn.transaction():
            counts = await scaling_store.wake(conn, asked.endpoint_id, asked.served_entity_id)
            if counts is None:
                return False
            decision = ScalingDecision(
                served_entity_id=asked.served_entity_id,
                served_entity_name=counts.name,
                config_version=counts.config_version,
                before=0,
                after=1,
                reason=woken_because(asked.held),
                decided_by=DecidedBy.WAKE,
                seen={"held": asked.held},
            )
            await scaling_store.keep(conn, asked.endpoint_id, decision)
        await self._tell(asked.endpoint_id, decision)
        return True

    async def _tell(self, endpoint_id: str, decision: ScalingDecision) -> None:
        log.info(
            "scaled",
            endpoint_id=endpoint_id,
            served_entity=decision.served_entity_name,
            before=decision.before,
            after=decision.after,
            reason=decision.reason,
            decided_by=decision.decided_by,
        )
        # Controllers hear their own signals, too.
        await self._bus.signal(subjects.endpoints_changed(), EndpointsChanged(endpoint_ids=(endpoint_id,)))
