"""Finds places for replicas within quotas and the workers' room: the shell around ``domain.capacity``.

Only the leader places, and in one process: what it placed a moment ago is remembered here until Postgres shows it, so
that steps of many endpoints, which run side by side, never place more than fits. ``look`` reads Postgres; ``place``
decides without waiting for anything.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from servery_common.errors import ResourceExhausted, ServeryError
from servery_common.postgres.pool import Connection, Pool
from servery_controller.compute import compute_store
from servery_controller.compute.backend import ComputeBackend
from servery_controller.domain.capacity import (
    DRAIN_PATIENCE,
    Holding,
    ScopeKind,
    Usage,
    WaitingFirst,
    added_by,
    choose_extra,
    holdings_in,
    scopes_of,
)
from servery_controller.domain.endpoint import Deployment, Replica, ServedEntity
from servery_controller.domain.scaling import DecidedBy, ScalingDecision
from servery_controller.domain.sizes import SLOTS_PER_REPLICA
from servery_controller.scaling import scaling_store

log = structlog.get_logger()

PLACED_SECONDS = 10.0
"""A placement that Postgres does not show after so long was never written."""
WAITING_SECONDS = 3.0
"""Whoever waits for room asks each second; who has not for so long waits no more."""


@dataclass(frozen=True, slots=True)
class ComputeQuotas:
    """The installation's own limits, in slots. None: no limit."""

    workspace: int | None = None
    regions: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class _GivingBack:
    """A replica that is to make room."""

    holding: Holding
    kept: int
    """Replicas of its entity before."""
    reason: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """A served entity that waits for its first replica, and when it last asked for a place."""

    endpoint_id: str
    first: WaitingFirst
    at: float


class Placer:
    """``clock`` returns monotonic seconds."""

    def __init__(
        self, pool: Pool, backend: ComputeBackend, quotas: ComputeQuotas, clock: Callable[[], float]
    ) -> None:
        self._pool = pool
        self._backend = backend
        self._quotas = quotas
        self._clock = clock
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")
        self._usage = Usage((), {}, {})
        self._placed: dict[str, tuple[Holding, float]] = {}
        """Placements that Postgres did not show yet, by replica id."""
        self._waiting: dict[str, _Asked] = {}
        """By served entity id."""
        self._stopping_since: dict[str, float] = {}
        """By replica id. Those that were chosen to make room count from then on."""
        self._giving_back: list[_GivingBack] = []

    async def look(self, endpoint_id: str) -> None:
        """Read what is held, before replicas of an endpoint are placed."""
        asked_at = self._clock()
        async with self._looking:
            # Of many that look at the same time one reads for all that came before it began.
            if self._looked_at < asked_at:
                await self._read()
        # Steps of one endpoint come one after the other: what its last one placed was read now, or never written.
        for replica_id in [r for r, (h, _) in self._placed.items() if h.endpoint_id == endpoint_id]:
            del self._placed[replica_id]
            self._backend.forget_placement(replica_id)

    async def _read(self) -> None:
        started_at = self._clock()
        self._usage = await compute_store.load_usage(self._pool, self._quotas.workspace, self._quotas.regions)
        self._looked_at = started_at
        seen = {h.replica_id for h in self._usage.holdings}
        oldest = started_at - PLACED_SECONDS
        self._placed = {r: p for r, p in self._placed.items() if r not in seen and p[1] >= oldest}
        stopping = {h.replica_id for h in self._usage.holdings if h.stopping}
        chosen = {r: at for r, at in self._stopping_since.items() if r in stopping or at >= oldest}
        self._stopping_since = dict.fromkeys(stopping, started_at) | chosen

    def place(self, deployment: Deployment, replica: Replica, entity: ServedEntity) -> str:
        """Return the node for a replica. Call after ``look``, without waiting for anything in between.

        Raises ResourceExhausted or Unavailable, with the reason for people, when there is no room now.
        """
        assert entity.artifacts is not None, "a served entity has replicas once it was built"
        self._placed.pop(replica.id, None)
        workspace_id = deployment.endpoint.workspace_id
        first = self._is_first(deployment, entity)
        holding = Holding(
            replica_id=replica.id,
            served_entity_id=entity.id,
            config_version=entity.config_version,
            endpoint_id=deployment.endpoint.id,
            workspace_id=workspace_id,
            slots=SLOTS_PER_REPLICA,
            promised=entity.min_replicas,
        )
        usage = self._seen_usage()
        room = self._backend.room(SLOTS_PER_REPLICA)
        for scope in scopes_of(usage, workspace_id, room, self._others_waiting(entity.id)):
            problem = scope.refusal(added_by(holding, usage, scope), first=first)
            # That the workers are full is said by who knows them: there may be none.
            if problem is not None and not (scope.kind is ScopeKind.WORKERS and room.used >= room.slots):
                self._refused(deployment, entity, usage, scope.kind, scope.key, first=first)
                raise ResourceExhausted(problem)
        try:
            node = self._backend.place(
                replica.id,
                slots=SLOTS_PER_REPLICA,
                environment_key=entity.artifacts.environment_key,
                workload_type=entity.spec.workload_type,
            )
        except ServeryError:
            self._refused(deployment, entity, usage, ScopeKind.WORKERS, "", first=first)
            raise
        self._waiting.pop(entity.id, None)
        self._placed[replica.id] = (holding, self._clock())
        return node

    def waiting(self) -> list[str]:
        """Ids of the endpoints that wait for a first replica: look at them when room has become free."""
        return [asked.endpoint_id for asked in self._waiting.values()]

    async def give_back(self, check: Callable[[Connection], Awaitable[None]]) -> Sequence[str]:
        """Stop the replicas that are to make room, and keep the decisions. Returns the ids of their endpoints.

        ``check`` raises StaleLeader in the transaction when this process leads no more.
        """
        giving_back, self._giving_back = self._giving_back, []
        for each in giving_back:
            holding = each.holding
            async with self._pool.acquire() as conn, conn.transaction():
                await check(conn)
                name = await compute_store.entity_name(conn, holding.served_entity_id)
                if name is None or not await compute_store.stop_extra(
                    conn, holding.endpoint_id, holding.replica_id
                ):
                    continue
                decision = ScalingDecision(
                    served_entity_id=holding.served_entity_id,
                    served_entity_name=name,
                    config_version=holding.config_version,
                    before=each.kept,
                    after=each.kept - 1,
                    reason=each.reason,
                    decided_by=DecidedBy.CAPACITY,
                )
                await scaling_store.keep(conn, holding.endpoint_id, decision)
            log.info(
                "replica_given_back", replica_id=holding.replica_id, served_entity=name, reason=each.reason
            )
        return [each.holding.endpoint_id for each in giving_back]

    def _is_first(self, deployment: Deployment, entity: ServedEntity) -> bool:
        kept = any(r.node is not None and not r.stopping for r in deployment.replicas_of(entity.id))
        return not kept and all(h.served_entity_id != entity.id for h, _ in self._placed.values())

    def _seen_usage(self) -> Usage:
        """What Postgres showed, with what was decided since."""
        holdings = [
            replace(h, stopping=True) if h.replica_id in self._stopping_since else h
            for h in self._usage.holdings
        ]
        return replace(self._usage, holdings=[*holdings, *(h for h, _ in self._placed.values())])

    def _others_waiting(self, entity_id: str) -> list[WaitingFirst]:
        oldest = self._clock() - WAITING_SECONDS
        self._waiting = {i: asked for i, asked in self._waiting.items() if asked.at >= oldest}
        return [asked.first for i, asked in self._waiting.items() if i != entity_id]

    def _refused(
        self,
        deployment: Deployment,
        entity: ServedEntity,
        usage: Usage,
        kind: ScopeKind,
        key: str,
        *,
        first: bool,
    ) -> None:
        if not first or not self._backend.observe().complete:
            return  # what was not heard of yet may have room
        if kind is ScopeKind.WORKERS and not self._backend.room(SLOTS_PER_REPLICA).slots:
            return  # no worker is there: nobody can make room
        endpoint, now = deployment.endpoint, self._clock()
        waiting = WaitingFirst(kind, endpoint.workspace_id, usage.region_of(endpoint.workspace_id))
        self._waiting[entity.id] = _Asked(endpoint.id, waiting, now)
        waiting_slots = SLOTS_PER_REPLICA * sum(a.first.waits_in(kind, key) for a in self._waiting.values())
        holdings = holdings_in(usage, kind, key)
        draining = sum(
            h.slots
            for h in holdings
            if h.stopping and now - self._stopping_since[h.replica_id] < DRAIN_PATIENCE
        )
        # Never the last one that works: what starts, has failed or was on a lost worker is not counted as kept.
        ready = self._backend.ready_replicas()
        extra = choose_extra(
            [h for h in holdings if h.stopping or h.replica_id in ready], waiting_slots, draining
        )
        if extra is None:
            return
        kept = sum(h.served_entity_id == extra.served_entity_id and not h.stopping for h in holdings)
        whose = (
            f"'{entity.spec.name}' of endpoint '{endpoint.name}'"
            if extra.workspace_id == endpoint.workspace_id
            else "a served entity of another workspace"
        )
        reason = f"given back, as the first replica of {whose} finds no room"
        self._stopping_since[extra.replica_id] = now
        self._giving_back.append(_GivingBack(extra, kept, reason))
