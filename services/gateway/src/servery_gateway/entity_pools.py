"""Which served entities a gateway routes to, each with its pool, as the routes say. Sends nothing and ends nothing."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from servery_common.contracts.routes import EndpointRoute, ServedEntityRoute
from servery_gateway.activity import Activity
from servery_gateway.entity_pool import EndpointQueue, EntityPool, Replica


class Followed(NamedTuple):
    """What a change of a route came to."""

    routed: Sequence[EntityPool]
    """They may have other replicas now, or a reason why there will be none."""
    withdrawn: Sequence[EntityPool]
    """What waits in them waits for nothing."""


class EntityPools:
    """All pools, by what they are looked for by: the dictionaries stay the same objects for good."""

    def __init__(self, activity: Activity[EntityPool]) -> None:
        self._activity = activity
        self._queues: dict[str, EndpointQueue] = {}
        """By endpoint id."""
        self.by_entity: dict[str, EntityPool] = {}
        """By served entity id."""
        self.by_replica: dict[str, EntityPool] = {}
        """By replica id."""

    def follow(self, before: EndpointRoute | None, after: EndpointRoute | None, now: float) -> Followed:
        """Follow the change of one endpoint's route."""
        kept = {} if after is None else {one.served_entity_id: one for one in after.served_entities}
        withdrawn = [
            pool
            for entity in (() if before is None else before.served_entities)
            if entity.served_entity_id not in kept
            and (pool := self.by_entity.pop(entity.served_entity_id, None)) is not None
        ]
        # A replica may change hands: what it works on counts for whom it belongs to now.
        known = {replica.id: replica for pool in withdrawn for replica in pool.replicas.values()}
        for pool in withdrawn:
            self._activity.remove(pool)
            self._follow_replicas(pool, ())
            pool.replicas = {}
        if after is None:
            if before is not None:
                self._queues.pop(before.endpoint_id, None)
            return Followed((), withdrawn)
        queue = self._queues.setdefault(after.endpoint_id, EndpointQueue())
        queue.update(after)
        routed = [self._follow_entity(after, entity, queue, now, known) for entity in kept.values()]
        return Followed(routed, withdrawn)

    def _follow_entity(
        self,
        route: EndpointRoute,
        entity: ServedEntityRoute,
        queue: EndpointQueue,
        now: float,
        known: Mapping[str, Replica],
    ) -> EntityPool:
        pool = self.by_entity.get(entity.served_entity_id)
        if pool is None:
            pool = self.by_entity[entity.served_entity_id] = EntityPool(route, entity, queue, now, known)
            self._activity.add(pool)
        else:
            pool.update(route, entity, known)
        self._follow_replicas(pool, [replica.replica_id for replica in entity.replicas])
        return pool

    def _follow_replicas(self, pool: EntityPool, replica_ids: Sequence[str]) -> None:
        for replica_id in pool.known_as:
            self.by_replica.pop(replica_id, None)
        pool.known_as = tuple(replica_ids)
        for replica_id in replica_ids:
            self.by_replica[replica_id] = pool
