"""What the controller knows: endpoints, their configs, served entities and replicas.

Plain immutable values. ``Deployment`` is what is wanted, as loaded from Postgres; ``Observation`` is what is seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from servery_common.contracts.access import PrincipalKind
from servery_common.contracts.builds import Artifacts, BuildStatus
from servery_common.contracts.replicas import ReplicaObservation
from servery_common.contracts.routes import RateLimit
from servery_controller.domain.permissions import Grantee, Grants, PermissionLevel


class ConfigPhase(StrEnum):
    """One version of an endpoint's config."""

    PENDING = (
        "PENDING"  #: its served entities are being built and started; an older config may serve meanwhile
    )
    ROLLING = "ROLLING"  #: ready, and gets a growing share of the traffic beside the active one while it does as well
    ACTIVE = "ACTIVE"  #: it gets the traffic
    STOPPED = "STOPPED"  #: was active until a person stopped the endpoint; kept to be started again
    FAILED = "FAILED"  #: a served entity could not be deployed; kept to show why until the next update
    CANCELED = "CANCELED"  #: given up on request before it was ready
    RETIRED = "RETIRED"  #: replaced by a newer one; only its draining replicas are left


class EntityPhase(StrEnum):
    """One served entity of one config version."""

    BUILDING = "BUILDING"  #: the builder makes its environment and verifies the model
    STARTING = "STARTING"  #: built; replicas are being started
    READY = "READY"  #: every promised replica took requests once, and at least one does now
    IDLE = "IDLE"  #: scaled to zero, or being woken from it: requests are held until a replica takes them
    RECOVERING = "RECOVERING"  #: was ready and lost its last ready replica; replacements are being started
    FAILED = "FAILED"  #: cannot be deployed without a change by a person
    ABORTED = "ABORTED"  #: given up because its config failed or was canceled, stopped or replaced


@dataclass(frozen=True, slots=True)
class Route:
    """A share of the traffic, in percent, for one served entity."""

    served_entity_name: str
    traffic_percentage: int


@dataclass(frozen=True, slots=True)
class EntitySpec:
    """One served entity as a person asked for it."""

    name: str
    entity_name: str
    entity_version: str
    """The resolved version number."""
    entity_type: str
    workload_size: str | None
    workload_type: str
    scale_to_zero_enabled: bool
    min_provisioned_concurrency: int | None
    max_provisioned_concurrency: int | None
    environment_vars: Mapping[str, str] = field(default_factory=dict[str, str])
    instance_profile_arn: str | None = None


@dataclass(frozen=True, slots=True)
class ServedEntity:
    """A served entity of one config version, and how far its deployment is."""

    id: str
    config_version: int
    spec: EntitySpec
    min_replicas: int
    max_replicas: int
    desired_replicas: int
    build_id: str
    build_requested_at: datetime
    artifacts: Artifacts | None
    phase: EntityPhase
    message: str
    created_at: datetime
    creator: str
    """The name, for people."""
    creator_id: str | None
    """The principal its model acts as; None for one made before there were principals."""
    adopts: str | None = None
    """Id of the served entity of the active config whose replicas it takes over when its own config becomes active."""


@dataclass(frozen=True, slots=True)
class RolloutStep:
    """How far a guarded rollout is."""

    index: int
    """Of the shares the new version gets one after the other."""
    began_at: datetime


@dataclass(frozen=True, slots=True)
class Config:
    """One version of an endpoint's config."""

    version: int
    phase: ConfigPhase
    routes: tuple[Route, ...]
    created_at: datetime
    rollout: RolloutStep | None = None
    """Only of one that is ROLLING."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica somebody decided to have. Whether it runs is an observation, not a fact about the row."""

    id: str
    served_entity_id: str
    node: str | None
    """Where it belongs, decided once; None until then."""
    stopping: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class EmailNotifications:
    """Who is told how an update of the endpoint ended: addresses."""

    on_update_success: tuple[str, ...] = ()
    on_update_failure: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint as a person sees it, without its configs."""

    id: str
    workspace_id: str
    name: str
    creator: str
    created_at: datetime
    updated_at: datetime
    generation: int
    observed_generation: int
    deleted: bool
    description: str
    tags: tuple[tuple[str, str], ...]
    route_optimized: bool
    timeout_seconds: float
    rate_limits: tuple[RateLimit, ...] = ()
    email_notifications: EmailNotifications = field(default_factory=EmailNotifications)
    budget_policy_id: str | None = None
    creator_kind: PrincipalKind = "user"
    creator_display_name: str = ""


@dataclass(frozen=True, slots=True)
class Deployment:
    """An endpoint with its configs, served entities and replicas: what is wanted."""

    endpoint: Endpoint
    configs: tuple[Config, ...]
    entities: tuple[ServedEntity, ...]
    replicas: tuple[Replica, ...]
    grants: Grants = field(default_factory=dict[Grantee, PermissionLevel])

    @property
    def active(self) -> Config | None:
        """The config that gets the traffic."""
        return next((c for c in self.configs if c.phase is ConfigPhase.ACTIVE), None)

    @property
    def stopped(self) -> Config | None:
        """The config that served until a person stopped the endpoint; it stays until another one is active."""
        return next((c for c in self.configs if c.phase is ConfigPhase.STOPPED), None)

    @property
    def updating(self) -> bool:
        """Whether a config is on its way."""
        return self.newest is not None and self.newest.phase in (ConfigPhase.PENDING, ConfigPhase.ROLLING)

    @property
    def rolling(self) -> Config | None:
        """The config that gets a growing share of the traffic beside the active one."""
        return next((c for c in self.configs if c.phase is ConfigPhase.ROLLING), None)

    @property
    def newest(self) -> Config | None:
        """The config a person asked for last."""
        return max(self.configs, key=lambda c: c.version, default=None)

    def entities_of(self, version: int) -> tuple[ServedEntity, ...]:
        """The served entities of one config version, in the order they were given."""
        return tuple(e for e in self.entities if e.config_version == version)

    def replicas_of(self, entity_id: str) -> tuple[Replica, ...]:
        """The replicas of one served entity, oldest first."""
        return tuple(r for r in self.replicas if r.served_entity_id == entity_id)


@dataclass(frozen=True, slots=True)
class EntityHealth:
    """How a served entity did since the present step of a rollout began, in all gateways together."""

    requests: int = 0
    errors: int = 0
    """Answers of 400 and above: a model's own fault is one of them."""
    total_ms: float = 0.0
    """The time of all requests together."""
    in_flight: int = 0
    """Requests that came and are not answered yet."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What is there, as far as can be seen."""

    replicas: Mapping[str, ReplicaObservation]
    """By replica id."""
    nodes: frozenset[str]
    """Where replicas can be now."""
    complete: bool
    """False while not every node can be expected to have reported: then absence proves nothing."""
    builds: Mapping[str, BuildStatus]
    """By build id; a build that could not be asked about is absent."""
    waiting: frozenset[str] = frozenset()
    """Replicas that have something which runs for them, but are not held by it yet."""
    health: Mapping[str, EntityHealth] = field(default_factory=dict[str, EntityHealth])
    """By served entity id, during a rollout."""
    counted_seconds: float = 0.0
    """For how long ``health`` was counted: since the step began, or since this controller took it over."""
