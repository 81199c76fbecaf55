"""Who may have how much of the workers: quotas, and the rule that keeps small endpoints from being starved. Pure.

A replica takes slots in up to three *scopes*: its workspace's quota, its region's, and the workers themselves. It is
placed when every scope has room. What tells endpoints apart is a served entity's first replica, without which it serves
nothing, from the *extras* beyond it:

* Extras leave a reserve free in each scope: for every first replica that waits there, and for those of entities at zero
  as far as they fit into a quarter of the scope. So waking one seldom has to wait.
* A first replica that finds no room makes an extra give up its own: one of the entity that has the most, where possible
  of one that has more than it was promised. It is drained like any other; another one follows only when it has gone,
  or has not after ``DRAIN_PATIENCE`` seconds.

Quotas count an endpoint that is being updated once, with the config version that takes the most: an update needs room
on the workers, but no larger quota. What runs when a quota is lowered goes on; nothing is added until there is room.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

RESERVED_SHARE = 4
"""Entities at zero have at most one in so many places kept for them."""
DRAIN_PATIENCE = 10.0
"""Seconds a replica that was given back may take to go before another one is."""
MOST_STOPPING = 3
"""So many times the slots that are wanted may be stopping at a time."""


class ScopeKind(StrEnum):
    """What limits."""

    WORKSPACE = "workspace"
    REGION = "region"
    WORKERS = "workers"


@dataclass(frozen=True, slots=True)
class Room:
    """Slots of the workers, and how many of them are taken."""

    slots: int
    used: int


@dataclass(frozen=True, slots=True)
class Holding:
    """A replica that has a node: it takes its slots until it has gone."""

    replica_id: str
    served_entity_id: str
    config_version: int
    endpoint_id: str
    workspace_id: str
    slots: int
    promised: int
    """The fewest replicas its entity should have."""
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class Workspace:
    """A workspace as far as compute is concerned."""

    id: str
    name: str
    region: str
    """Empty: not said."""
    quota: int | None
    """Slots; None: no limit."""
    asleep: int = 0
    """Served entities at zero."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What is held in the whole installation, oldest first, and by whom it may be."""

    holdings: Sequence[Holding]
    workspaces: Mapping[str, Workspace]
    regions: Mapping[str, int]
    """Region -> slots, of those that have a quota."""

    def region_of(self, workspace_id: str) -> str:
        """The region of a workspace; empty when it has none."""
        found = self.workspaces.get(workspace_id)
        return found.region if found else ""


@dataclass(frozen=True, slots=True)
class Scope:
    """One limit on slots, and how far it is used."""

    kind: ScopeKind
    key: str
    """The workspace's id, the region, or empty."""
    slots: int
    used: int
    asleep: int = 0
    """Served entities at zero in it."""
    waiting: int = 0
    """First replicas that wait for room in it."""

    def reserve(self, slots: int) -> int:
        """Slots that extras of ``slots`` slots each leave free."""
        quarter = self.slots // slots // RESERVED_SHARE
        return slots * max(self.waiting, min(self.waiting + self.asleep, quarter))

    def refusal(self, slots: int, *, first: bool) -> str | None:
        """Why a replica that adds so many slots cannot be placed now, for people; None: it can."""
        if slots == 0:
            return None
        free = self.slots - self.used
        if free < slots:
            return self._full(slots)
        reserve = self.reserve(slots)
        if not first and free - slots < reserve:
            return (
                f"The last {reserve} slots of {self._what} are kept for served entities that have no replica, as they "
                "are starting or at zero."
            )
        return None

    @property
    def _what(self) -> str:
        match self.kind:
            case ScopeKind.WORKSPACE:
                return "the workspace's compute quota"
            case ScopeKind.REGION:
                return f"the compute quota of region '{self.key}'"
            case ScopeKind.WORKERS:
                return "the workers"

    def _full(self, slots: int) -> str:
        used_up = f"{self.used} of {self.slots} slots are used, and a replica takes {slots}."
        match self.kind:
            case ScopeKind.WORKSPACE:
                return (
                    f"The workspace's compute quota is used up: {used_up} Delete an endpoint or make one smaller, or "
                    "have an operator raise the quota (servery quota set compute=N)."
                )
            case ScopeKind.REGION:
                return (
                    f"The compute quota of region '{self.key}' is used up: {used_up} An operator can raise it "
                    "(SERVERY_CONTROLLER_REGION_COMPUTE_SLOTS)."
                )
            case ScopeKind.WORKERS:
                return f"No worker has room: {used_up} Start another worker, or delete an endpoint."


@dataclass(frozen=True, slots=True)
class WaitingFirst:
    """A served entity whose first replica found no room in a scope of this kind."""

    kind: ScopeKind
    workspace_id: str
    region: str

    def waits_in(self, kind: ScopeKind, key: str) -> bool:
        """Whether it waits in this scope."""
        own = {ScopeKind.WORKSPACE: self.workspace_id, ScopeKind.REGION: self.region, ScopeKind.WORKERS: ""}
        return self.kind is kind and own[kind] == key


def scopes_of(
    usage: Usage, workspace_id: str, workers: Room, waiting: Iterable[WaitingFirst] = ()
) -> list[Scope]:
    """Return the scopes a workspace's replicas take slots in, the narrowest first."""
    firsts = tuple(waiting)
    workspace, region = usage.workspaces.get(workspace_id), usage.region_of(workspace_id)
    quotas: list[tuple[ScopeKind, str, int]] = []
    if workspace is not None and workspace.quota is not None:
        quotas.append((ScopeKind.WORKSPACE, workspace_id, workspace.quota))
    if region in usage.regions:
        quotas.append((ScopeKind.REGION, region, usage.regions[region]))
    limits = [
        *(
            (kind, key, slots, sum(h.slots for h in holdings_in(usage, kind, key)))
            for kind, key, slots in quotas
        ),
        (ScopeKind.WORKERS, "", workers.slots, workers.used),
    ]
    return [
        Scope(
            kind=kind,
            key=key,
            slots=slots,
            used=used,
            asleep=sum(w.asleep for w in usage.workspaces.values() if _is_in(w, kind, key)),
            waiting=sum(first.waits_in(kind, key) for first in firsts),
        )
        for kind, key, slots, used in limits
    ]


def holdings_in(usage: Usage, kind: ScopeKind, key: str) -> list[Holding]:
    """Return what counts in a scope, oldest first.

    Of an endpoint, quotas count the config version that takes the most.
    """
    inside = [
        h
        for h in usage.holdings
        if (workspace := usage.workspaces.get(h.workspace_id)) and _is_in(workspace, kind, key)
    ]
    if kind is ScopeKind.WORKERS:
        return inside
    versions: dict[str, Counter[int]] = {}
    for holding in inside:
        versions.setdefault(holding.endpoint_id, Counter())[holding.config_version] += holding.slots
    largest = {
        endpoint_id: max(taken, key=lambda version, taken=taken: (taken[version], version))
        for endpoint_id, taken in versions.items()
    }
    return [h for h in inside if h.config_version == largest[h.endpoint_id]]


def added_by(holding: Holding, usage: Usage, scope: Scope) -> int:
    """Return the slots that a scope would hold more with one more replica: of an update that may be none."""
    if scope.kind is ScopeKind.WORKERS:
        return holding.slots
    after = replace(usage, holdings=[*usage.holdings, holding])
    return sum(h.slots for h in holdings_in(after, scope.kind, scope.key)) - scope.used


def choose_extra(holdings: Sequence[Holding], wanted: int, draining: int) -> Holding | None:
    """Return the replica to give back for first replicas that want so many slots, or None.

    ``holdings`` are those of the scope, oldest first; ``draining`` slots become free by themselves soon. Those that do
    not, as they still stream answers, are followed by others, but not by ever more of them.
    """
    stopping = sum(h.slots for h in holdings if h.stopping)
    if draining >= wanted or stopping >= MOST_STOPPING * wanted:
        return None
    kept: dict[str, list[Holding]] = {}
    for holding in holdings:
        if not holding.stopping:
            kept.setdefault(holding.served_entity_id, []).append(holding)
    taken = max(
        (own for own in kept.values() if len(own) > 1),
        key=lambda own: (len(own) > own[0].promised, len(own), own[0].served_entity_id),
        default=None,
    )
    return taken[-1] if taken else None


def _is_in(workspace: Workspace, kind: ScopeKind, key: str) -> bool:
    match kind:
        case ScopeKind.WORKSPACE:
            return workspace.id == key
        case ScopeKind.REGION:
            return workspace.region == key
        case ScopeKind.WORKERS:
            return True
