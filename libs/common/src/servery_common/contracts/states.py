"""The states that are seen on the wire.

The first group is Databricks' vocabulary, answered by the management API letter for letter; the second
is Servery's own, spoken between services. Which state follows which is decided in the one service that
writes the row (the controller's ``domain/lifecycle.py``, the builder's ``domain/build.py``).
"""

from enum import StrEnum


class EndpointReady(StrEnum):
    """``state.ready``: whether every served entity of the active config can take requests."""

    READY = "READY"
    NOT_READY = "NOT_READY"


class ConfigUpdate(StrEnum):
    """``state.config_update``: what happened to the newest config. Clients poll this."""

    NOT_UPDATING = "NOT_UPDATING"
    IN_PROGRESS = "IN_PROGRESS"
    UPDATE_FAILED = "UPDATE_FAILED"
    UPDATE_CANCELED = "UPDATE_CANCELED"


class Suspend(StrEnum):
    """``state.suspend``: whether a person stopped the endpoint."""

    NOT_SUSPENDED = "NOT_SUSPENDED"
    SUSPENDED = "SUSPENDED"


class DeploymentState(StrEnum):
    """``served_entities[].state.deployment``: one served entity of one config."""

    CREATING = "DEPLOYMENT_CREATING"
    READY = "DEPLOYMENT_READY"
    RECOVERING = "DEPLOYMENT_RECOVERING"
    FAILED = "DEPLOYMENT_FAILED"
    ABORTED = "DEPLOYMENT_ABORTED"


class BuildState(StrEnum):
    """One build: a model version made into a ready environment."""

    QUEUED = "QUEUED"  #: accepted by the builder, waiting for a free slot
    BUILDING = "BUILDING"  #: claimed by one builder process
    SUCCEEDED = "SUCCEEDED"  #: environment and model are in place and were verified
    FAILED = "FAILED"  #: will not succeed without a change by a person; the reason says which


class ReplicaState(StrEnum):
    """One replica as its worker sees it."""

    STARTING = "STARTING"  #: the runner is being forked or is loading the model
    READY = "READY"  #: takes requests
    RESTARTING = "RESTARTING"  #: the runner died and is being replaced
    DRAINING = "DRAINING"  #: finishes what it accepted, takes nothing new
    FAILED = "FAILED"  #: the runner cannot be started; the reason says why
    STOPPED = "STOPPED"  #: gone
