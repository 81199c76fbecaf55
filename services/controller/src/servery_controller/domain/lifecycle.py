"""THE state machines of the controller: a config version and a served entity.

Rule 1: a phase changes only through ``advance_config`` and ``advance_entity``, by an event of these tables.

Theory of operation. A person's create or update makes a config PENDING with its entities BUILDING. Each
entity is built, then started. When all are READY the config becomes ACTIVE and the one before it RETIRED,
in one transaction: there is never a moment with two. When one entity cannot be deployed the config is
FAILED, the other entities are ABORTED, and whatever was ACTIVE stays so. An entity of an ACTIVE config never
fails: it recovers for as long as the config is wanted, because giving up would turn a passing fault into
an outage. One that nobody asks for is IDLE, without a replica, until a request wakes it. Only while its config is
PENDING does time run out for an entity (TIMED_OUT).

In a guarded rollout the PENDING config becomes ROLLING first: both serve, the new one with a share of the traffic that
grows in steps for as long as it does no worse than the ACTIVE one (``domain.rollout``). If it does, it is FAILED.

A person may stop what is ACTIVE: the config is STOPPED and its entities ABORTED. Starting makes a new PENDING config
of it, and only when that one is ACTIVE is the STOPPED one RETIRED: a start that fails leaves the endpoint
stopped, to be started again.
"""

from collections.abc import Mapping
from enum import StrEnum

from servery_common.contracts.states import ConfigUpdate, DeploymentState
from servery_controller.domain.endpoint import ConfigPhase, EntityPhase


class ConfigEvent(StrEnum):
    """What can happen to a config version."""

    ENTITIES_READY = "every served entity can take requests"
    ROLLOUT_BEGUN = "every served entity can take requests, and the traffic is to move in steps"
    ROLLOUT_ENDED = "it did as well as the active one with its last share of the traffic"
    ROLLED_BACK = "it did worse than the active one"
    ENTITY_FAILED = "a served entity cannot be deployed"
    CANCELED = "a person gave it up"
    STOPPED = "a person stopped the endpoint"
    REPLACED = "a newer config became active or took its place"


class EntityEvent(StrEnum):
    """What can happen to a served entity."""

    BUILT = "its build succeeded"
    BUILD_FAILED = "its build failed"
    REPLICA_READY = "a replica takes requests"
    REPLICAS_LOST = "no replica takes requests any more"
    SLEPT = "it was scaled to zero"
    CANNOT_START = "a replica cannot load the model"
    TIMED_OUT = "its config is still pending after the deployment timeout"
    REGRESSED = "it did worse than what it was to replace"
    GIVEN_UP = "its config failed, was canceled, stopped or replaced"


CONFIG_TRANSITIONS: Mapping[ConfigPhase, Mapping[ConfigEvent, ConfigPhase]] = {
    ConfigPhase.PENDING: {
        ConfigEvent.ENTITIES_READY: ConfigPhase.ACTIVE,
        ConfigEvent.ROLLOUT_BEGUN: ConfigPhase.ROLLING,
        ConfigEvent.ENTITY_FAILED: ConfigPhase.FAILED,
        ConfigEvent.CANCELED: ConfigPhase.CANCELED,
    },
    ConfigPhase.ROLLING: {
        ConfigEvent.ROLLOUT_ENDED: ConfigPhase.ACTIVE,
        ConfigEvent.ROLLED_BACK: ConfigPhase.FAILED,
        ConfigEvent.CANCELED: ConfigPhase.CANCELED,
    },
    ConfigPhase.ACTIVE: {
        ConfigEvent.STOPPED: ConfigPhase.STOPPED,
        ConfigEvent.REPLACED: ConfigPhase.RETIRED,
    },
    ConfigPhase.STOPPED: {ConfigEvent.REPLACED: ConfigPhase.RETIRED},
    # A failed or canceled config is shown until the next update, then retired.
    ConfigPhase.FAILED: {ConfigEvent.REPLACED: ConfigPhase.RETIRED},
    ConfigPhase.CANCELED: {ConfigEvent.REPLACED: ConfigPhase.RETIRED},
    ConfigPhase.RETIRED: {},
}

ENTITY_TRANSITIONS: Mapping[EntityPhase, Mapping[EntityEvent, EntityPhase]] = {
    EntityPhase.BUILDING: {
        EntityEvent.BUILT: EntityPhase.STARTING,
        EntityEvent.BUILD_FAILED: EntityPhase.FAILED,
        EntityEvent.TIMED_OUT: EntityPhase.FAILED,
        EntityEvent.GIVEN_UP: EntityPhase.ABORTED,
    },
    EntityPhase.STARTING: {
        EntityEvent.REPLICA_READY: EntityPhase.READY,
        EntityEvent.SLEPT: EntityPhase.IDLE,  # it takes over one that is at zero
        EntityEvent.CANNOT_START: EntityPhase.FAILED,
        EntityEvent.TIMED_OUT: EntityPhase.FAILED,
        EntityEvent.GIVEN_UP: EntityPhase.ABORTED,
    },
    EntityPhase.READY: {
        EntityEvent.REPLICAS_LOST: EntityPhase.RECOVERING,
        EntityEvent.SLEPT: EntityPhase.IDLE,
        EntityEvent.REGRESSED: EntityPhase.FAILED,
        EntityEvent.GIVEN_UP: EntityPhase.ABORTED,
    },
    EntityPhase.IDLE: {
        EntityEvent.REPLICA_READY: EntityPhase.READY,
        EntityEvent.REPLICAS_LOST: EntityPhase.RECOVERING,  # it was woken, and could not be started
        EntityEvent.REGRESSED: EntityPhase.FAILED,
        EntityEvent.GIVEN_UP: EntityPhase.ABORTED,
    },
    EntityPhase.RECOVERING: {
        EntityEvent.REPLICA_READY: EntityPhase.READY,
        EntityEvent.SLEPT: EntityPhase.IDLE,
        EntityEvent.REGRESSED: EntityPhase.FAILED,
        EntityEvent.TIMED_OUT: EntityPhase.FAILED,
        EntityEvent.GIVEN_UP: EntityPhase.ABORTED,
    },
    # A failed entity keeps its reason: it is not given up a second time.
    EntityPhase.FAILED: {},
    EntityPhase.ABORTED: {},
}

DEPLOYMENT_STATE: Mapping[EntityPhase, DeploymentState] = {
    EntityPhase.BUILDING: DeploymentState.CREATING,
    EntityPhase.STARTING: DeploymentState.CREATING,
    EntityPhase.READY: DeploymentState.READY,
    EntityPhase.IDLE: DeploymentState.READY,
    EntityPhase.RECOVERING: DeploymentState.RECOVERING,
    EntityPhase.FAILED: DeploymentState.FAILED,
    EntityPhase.ABORTED: DeploymentState.ABORTED,
}
"""How a phase is answered by the API."""

CONFIG_UPDATE: Mapping[ConfigPhase, ConfigUpdate] = {
    ConfigPhase.PENDING: ConfigUpdate.IN_PROGRESS,
    ConfigPhase.ROLLING: ConfigUpdate.IN_PROGRESS,
    ConfigPhase.ACTIVE: ConfigUpdate.NOT_UPDATING,
    ConfigPhase.STOPPED: ConfigUpdate.NOT_UPDATING,
    ConfigPhase.FAILED: ConfigUpdate.UPDATE_FAILED,
    ConfigPhase.CANCELED: ConfigUpdate.UPDATE_CANCELED,
    ConfigPhase.RETIRED: ConfigUpdate.NOT_UPDATING,
}
"""How the phase of the newest config is answered as ``state.config_update``."""


class IllegalTransition(Exception):
    """The event does not fit the phase: a bug, or news about something that has moved on."""


def advance_config(phase: ConfigPhase, event: ConfigEvent) -> ConfigPhase:
    """Return the phase after ``event``. Raises IllegalTransition, and then nothing happened."""
    try:
        return CONFIG_TRANSITIONS[phase][event]
    except KeyError:
        raise IllegalTransition(f"a {phase} config cannot take {event.name}") from None


def advance_entity(phase: EntityPhase, event: EntityEvent) -> EntityPhase:
    """Return the phase after ``event``. Raises IllegalTransition, and then nothing happened."""
    try:
        return ENTITY_TRANSITIONS[phase][event]
    except KeyError:
        raise IllegalTransition(f"a {phase} served entity cannot take {event.name}") from None
