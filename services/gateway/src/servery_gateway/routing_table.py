"""The routing snapshot: what the gateway knows without asking anyone, as an immutable value.

Every change makes a new ``Snapshot`` that replaces the old one in one assignment; a request reads one snapshot from
beginning to end. The bucket's order is the order of changes: who may write to it is the controllers' business.

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

from collections.abc import Callable, Collection, Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any, Generic, TypeVar

from servery_common.contracts import subjects
from servery_common.contracts.access import Identity, SigningKey, TokenGrant
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
    incarnations: Mapping[str, str] = field(default_factory=dict[str, str])
    """By field: which life of its bucket it was made from."""
    by_name: Mapping[tuple[str, str], EndpointRoute] = field(init=False)
    """By workspace id and endpoint name."""
    before: InitVar["Snapshot | None"] = None
    """The snapshot that this one replaces: what is derived of an unchanged field is taken over from it."""

    def __post_init__(self, before: "Snapshot | None") -> None:
        if before is not None and before.routes is self.routes:
            object.__setattr__(self, "by_name", before.by_name)
            return
        names: dict[tuple[str, str], EndpointRoute] = {}
        for route in self.routes.values():
            key = (route.workspace_id, route.name)
            # A name that was deleted and given again: the younger endpoint, should both still be here.
            if key not in names or names[key].created_at_ms < route.created_at_ms:
                names[key] = route
        object.__setattr__(self, "by_name", names)


class BucketView(Generic[V]):
    """Follows one bucket: collects changes until they make a consistent whole. Pure; time is an argument."""

    def __init__(self, values: Mapping[str, V], incarnation: str, absence_grace: float) -> None:
        self.values: Mapping[str, V] = values
        self.incarnation = incarnation
        self.loaded = False
        """Whether a complete listing was seen."""
        self._absence_grace = absence_grace
        self._draft: dict[str, V] = dict(values)
        self._seen: set[str] = set()
        self._doubted: dict[str, float | None] = {}

    def apply(self, change: KvChange[V], now: float) -> bool:
        """Take a change in; return whether ``values`` became another mapping."""
        match change.kind:
            case "put":
                self._put(change.key, change.value)
            case "delete":
                self._draft.pop(change.key, None)
                self._seen.discard(change.key)
                self._doubted.pop(change.key, None)
            case "caught_up":
                self._finish_listing(change.incarnation, change.missing, now)
        # The first listing is shown as a whole: half of it would be a routing table with holes.
        return self._publish() if self.loaded else False

    def expire(self, now: float) -> bool:
        """Remove keys a new bucket did not get back in time; return whether ``values`` changed."""
        if not self._doubted or not self._seen:
            return False
        for key, since in list(self._doubted.items()):
            if since is None:
                self._doubted[key] = now
            elif now - since >= self._absence_grace:
                del self._doubted[key]
                self._draft.pop(key, None)
        return self._publish()

    def _put(self, key: str, value: V | None) -> None:
        if value is None:
            return
        self._seen.add(key)
        self._doubted.pop(key, None)
        self._draft[key] = value

    def _finish_listing(self, incarnation: str, missing: frozenset[str], now: float) -> None:
        absent = [key for key in self._draft if key not in self._seen]
        if incarnation == self.incarnation and not missing:
            for key in absent:
                if key not in self._doubted:
                    del self._draft[key]
        else:
            self._seen -= missing
            for key in {*absent, *(missing & self._draft.keys())}:
                self._doubted.setdefault(key, None)
        self.incarnation = incarnation
        self.loaded = True

    def _publish(self) -> bool:
        if self.values == self._draft:
            return False
        self.values = dict(self._draft)
        return True


class RoutingTable:
    """Holds the present snapshot and tells who needs to know when it changes."""

    def __init__(self, snapshot: Snapshot, absence_grace: float) -> None:
        self.snapshot = snapshot
        self._views: dict[str, BucketView[Any]] = {
            name: BucketView(getattr(snapshot, name), snapshot.incarnations.get(name, ""), absence_grace)
            for name in BUCKETS
        }
        self._observers: list[tuple[Callable[[Snapshot], None], Collection[str]]] = []

    def observe(self, observer: Callable[[Snapshot], None], fields: Collection[str] = FIELDS) -> None:
        """Call back with the present snapshot, and with every new one in which one of these fields changed."""
        self._observers.append((observer, fields))
        observer(self.snapshot)

    @property
    def loaded(self) -> bool:
        """Whether there is something to route by: all listings were complete, or an earlier run left them."""
        known = all(view.loaded for view in self._views.values())
        return known or bool(self.snapshot.routes or self.snapshot.identities)

    def apply(self, name: str, change: KvChange[Any], now: float) -> None:
        """Follow the bucket behind one field of the snapshot."""
        if self._views[name].apply(change, now) or change.caught_up:
            self._replace()

    def expire(self, now: float) -> None:
        """To be called every few seconds: removes what a lost bucket did not get back."""
        changed = [view.expire(now) for view in self._views.values()]
        if any(changed):
            self._replace()

    def _replace(self) -> None:
        before = self.snapshot
        values = {name: view.values for name, view in self._views.items()}
        incarnations = {name: view.incarnation for name, view in self._views.items()}
        changed = {name for name, value in values.items() if value is not getattr(before, name)}
        if incarnations != before.incarnations:
            changed.add(INCARNATIONS)
        self.snapshot = Snapshot(**values, incarnations=incarnations, before=before)
        # A token comes and goes far more often than a route, of which there may be thousands to follow.
        for observer, fields in self._observers:
            if not changed.isdisjoint(fields):
                observer(self.snapshot)
