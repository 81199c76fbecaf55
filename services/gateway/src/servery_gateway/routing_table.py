"""The routing snapshot: what the gateway knows without asking anyone, as an immutable value.

Every change makes a new ``Snapshot`` that replaces the old one in one assignment; a request reads one snapshot from
beginning to end. The bucket's order is the order of changes: who may write to it is the controllers' business.

A change costs the same however many endpoints there are: the mappings are persistent ones (hash array mapped tries)
that share with their successors all but a few nodes, and who keeps something per endpoint is told what changed.

What counts as a deletion
-------------------------
Routes and tokens live in NATS buckets that can be lost (a wiped volume) while the truth, in Postgres, is
fine. So only a delete marker removes a key at once, and absence from a listing means different things:

* The bucket is the one this snapshot was made from (same incarnation): the key was deleted while we were not
  looking. It is removed.
* The bucket is a new one: its values were lost, not deleted, and the controller puts them again. Keys it does not put
  within ``absence_grace`` after it began to (a bucket that stays empty proves nothing) are removed: a token that was
  revoked meanwhile must not live for ever.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from rpds import HashTrieMap

from servery_common.contracts import subjects
from servery_common.contracts.access import Identity, SigningKey, TokenGrant
from servery_common.contracts.ip_access import WorkspaceIpAccess
from servery_common.contracts.message import Message
from servery_common.contracts.quotas import WorkspaceQuota
from servery_common.contracts.routes import EndpointRoute
from servery_common.messaging.port import KvChange

V = TypeVar("V", bound=Message)

BUCKETS: Mapping[str, tuple[str, type[Message]]] = {
    "routes": (subjects.ROUTES_BUCKET, EndpointRoute),
    "identities": (subjects.PRINCIPALS_BUCKET, Identity),
    "tokens": (subjects.TOKENS_BUCKET, TokenGrant),
    "signing_keys": (subjects.SIGNING_KEYS_BUCKET, SigningKey),
    "quotas": (subjects.QUOTAS_BUCKET, WorkspaceQuota),
    "ip_access": (subjects.IP_ACCESS_BUCKET, WorkspaceIpAccess),
}
"""What a snapshot is made of: its field -> the bucket and what is in it."""
INCARNATIONS = "incarnations"
FIELDS = (*BUCKETS, INCARNATIONS)
"""All fields of a snapshot that change."""


@dataclass(frozen=True)
class Snapshot:
    """Everything a gateway routes by."""

    routes: Mapping[str, EndpointRoute] = field(default_factory=dict[str, EndpointRoute])
    """By endpoint id."""
    identities: Mapping[str, Identity] = field(default_factory=dict[str, Identity])
    """By principal id."""
    tokens: Mapping[str, TokenGrant] = field(default_factory=dict[str, TokenGrant])
    """By hex SHA-256 of the token."""
    signing_keys: Mapping[str, SigningKey] = field(default_factory=dict[str, SigningKey])
    """By key id."""
    quotas: Mapping[str, WorkspaceQuota] = field(default_factory=dict[str, WorkspaceQuota])
    """By workspace id; absent: the default."""
    ip_access: Mapping[str, WorkspaceIpAccess] = field(default_factory=dict[str, WorkspaceIpAccess])
    """By workspace id; absent: may be reached from everywhere."""
    incarnations: Mapping[str, str] = field(default_factory=dict[str, str])
    """By field: which life of its bucket it was made from."""
    by_name: Mapping[tuple[str, str], EndpointRoute] = field(init=False)
    """By workspace id and endpoint name."""
    names: InitVar[Mapping[tuple[str, str], EndpointRoute] | None] = None
    """``by_name``, for whoever has it already."""

    def __post_init__(self, names: Mapping[tuple[str, str], EndpointRoute] | None) -> None:
        if names is None:
            index = NameIndex()
            for endpoint_id, route in self.routes.items():
                index.follow(Change(endpoint_id, None, route))
            names = index.by_name
        object.__setattr__(self, "by_name", names)


class Change(NamedTuple, Generic[V]):
    """One key of a bucket has another value. None: it has none."""

    key: str
    before: V | None
    after: V | None


class NameIndex:
    """Which endpoint answers to a name. While one is being deleted and its name given again, both may be here: the
    younger one does."""

    def __init__(self) -> None:
        self.by_name: HashTrieMap[tuple[str, str], EndpointRoute] = HashTrieMap()
        self._of_name: dict[tuple[str, str], dict[str, EndpointRoute]] = {}

    def follow(self, change: Change[EndpointRoute]) -> None:
        """Take a change in."""
        for route in (change.before, change.after):
            if route is None:
                continue
            name = (route.workspace_id, route.name)
            routes = self._of_name.setdefault(name, {})
            if route is change.after:
                routes[change.key] = route
            else:
                routes.pop(change.key, None)
            if routes:
                youngest = max(routes.values(), key=lambda one: one.created_at_ms)
                self.by_name = self.by_name.insert(name, youngest)
            else:
                del self._of_name[name]
                self.by_name = self.by_name.discard(name)


class BucketView(Generic[V]):
    """Follows one bucket: collects changes until they make a consistent whole. Pure; time is an argument."""

    def __init__(self, values: Mapping[str, V], incarnation: str, absence_grace: float) -> None:
        self.values: HashTrieMap[str, V] = HashTrieMap(values)
        self.incarnation = incarnation
        self.loaded = False
        """Whether a complete listing was seen."""
        self._absence_grace = absence_grace
        self._draft = self.values
        self._touched: set[str] = set()
        """Keys in which ``_draft`` may differ from ``values``."""
        self._seen: set[str] = set()
        self._doubted: dict[str, float | None] = {}

    def apply(self, change: KvChange[V], now: float) -> Sequence[Change[V]]:
        """Take a change in; return what it changed in ``values``, which is another mapping then."""
        match change.kind:
            case "put":
                self._put(change.key, change.value)
            case "delete":
                self._remove(change.key)
                self._seen.discard(change.key)
                self._doubted.pop(change.key, None)
            case "caught_up":
                self._finish_listing(change.incarnation, change.missing, now)
        # The first listing is shown as a whole: half of it would be a routing table with holes.
        return self._publish() if self.loaded else ()

    def expire(self, now: float) -> Sequence[Change[V]]:
        """Remove keys a new bucket did not get back in time; return what that changed in ``values``."""
        if not self._doubted or not self._seen:
            return ()
        for key, since in list(self._doubted.items()):
            if since is None:
                self._doubted[key] = now
            elif now - since >= self._absence_grace:
                del self._doubted[key]
                self._remove(key)
        return self._publish()

    def _put(self, key: str, value: V | None) -> None:
        if value is None:
            return
        self._seen.add(key)
        self._doubted.pop(key, None)
        self._draft = self._draft.insert(key, value)
        self._touched.add(key)

    def _remove(self, key: str) -> None:
        self._draft = self._draft.discard(key)
        self._touched.add(key)

    def _finish_listing(self, incarnation: str, missing: frozenset[str], now: float) -> None:
        absent = [key for key in self._draft if key not in self._seen]
        if incarnation == self.incarnation and not missing:
            for key in absent:
                if key not in self._doubted:
                    self._remove(key)
        else:
            self._seen -= missing
            for key in {*absent, *(key for key in missing if key in self._draft)}:
                self._doubted.setdefault(key, None)
        self.incarnation = incarnation
        self.loaded = True

    def _publish(self) -> Sequence[Change[V]]:
        touched = [Change(key, self.values.get(key), self._draft.get(key)) for key in self._touched]
        changes = [change for change in touched if change.before != change.after]
        self._touched.clear()
        if changes:
            self.values = self._draft
        else:
            self._draft = self.values
        return changes


RoutesFollower = Callable[[Sequence[Change[EndpointRoute]]], None]


class RoutingTable:
    """Holds the present snapshot and tells who needs to know when it changes."""

    def __init__(self, snapshot: Snapshot, absence_grace: float) -> None:
        self._views: dict[str, BucketView[Any]] = {
            name: BucketView(getattr(snapshot, name), snapshot.incarnations.get(name, ""), absence_grace)
            for name in BUCKETS
        }
        self._names = NameIndex()
        for endpoint_id, route in snapshot.routes.items():
            self._names.follow(Change(endpoint_id, None, route))
        self._observers: list[tuple[Callable[[Snapshot], None], Collection[str]]] = []
        self._followers: list[RoutesFollower] = []
        self.snapshot = self._compose(snapshot.incarnations)

    def observe(self, observer: Callable[[Snapshot], None], fields: Collection[str] = FIELDS) -> None:
        """Call back with the present snapshot, and with every new one in which one of these fields changed."""
        self._observers.append((observer, fields))
        observer(self.snapshot)

    def follow_routes(self, follower: "RoutesFollower") -> None:
        """Call back with all present routes, and with those that change."""
        self._followers.append(follower)
        follower([Change(key, None, route) for key, route in self.snapshot.routes.items()])

    @property
    def loaded(self) -> bool:
        """Whether there is something to route by: all listings were complete, or an earlier run left them."""
        known = all(view.loaded for view in self._views.values())
        return known or bool(self.snapshot.routes or self.snapshot.identities)

    def apply(self, name: str, change: KvChange[Any], now: float) -> None:
        """Follow the bucket behind one field of the snapshot."""
        changes = self._views[name].apply(change, now)
        if changes or change.caught_up:
            self._replace({name: changes})

    def expire(self, now: float) -> None:
        """To be called every few seconds: removes what a lost bucket did not get back."""
        changes = {name: view.expire(now) for name, view in self._views.items()}
        if any(changes.values()):
            self._replace(changes)

    def _replace(self, changes: Mapping[str, Sequence[Change[Any]]]) -> None:
        routes = changes.get("routes", ())
        for change in routes:
            self._names.follow(change)
        incarnations = {name: view.incarnation for name, view in self._views.items()}
        changed = {name for name, of_field in changes.items() if of_field}
        if incarnations != self.snapshot.incarnations:
            changed.add(INCARNATIONS)
        self.snapshot = self._compose(incarnations)
        if routes:
            for follower in self._followers:
                follower(routes)
        for observer, fields in self._observers:
            if not changed.isdisjoint(fields):
                observer(self.snapshot)

    def _compose(self, incarnations: Mapping[str, str]) -> Snapshot:
        values = {name: view.values for name, view in self._views.items()}
        return Snapshot(**values, incarnations=incarnations, names=self._names.by_name)
