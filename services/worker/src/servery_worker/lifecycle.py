"""The life of a replica's runner: every state change is in this table.

::

    STARTING ──loaded──> READY ──died──> RESTARTING ──loaded──> READY
       │ failed                    ▲         └─died, failed─> RESTARTING (later each time)
       └──> FAILED ──ordered again─┘

A replica that never became ready is not tried again by itself: the model cannot be loaded, and a person has
to know. One that was ready once, or that the controller still wants, is brought back for ever (``restarts``: when).
"""

from collections.abc import Mapping
from enum import Enum, auto

from servery_common.contracts.states import ReplicaState


class Happening(Enum):
    """What can happen to a runner."""

    LOADED = auto()  #: the model is loaded
    FAILED = auto()  #: it could not be started, or the model could not be loaded
    DIED = auto()  #: it was ready and is gone
    ORDERED_AGAIN = auto()  #: the controller knows that it failed and wants it nevertheless
    DRAIN = auto()  #: the replica shall finish what it accepted
    STOPPED = auto()  #: the replica is gone


S, H = ReplicaState, Happening

TRANSITIONS: Mapping[ReplicaState, Mapping[Happening, ReplicaState]] = {
    S.STARTING: {H.LOADED: S.READY, H.FAILED: S.FAILED, H.DRAIN: S.DRAINING, H.STOPPED: S.STOPPED},
    S.READY: {H.DIED: S.RESTARTING, H.DRAIN: S.DRAINING, H.STOPPED: S.STOPPED},
    S.RESTARTING: {
        H.LOADED: S.READY,
        H.FAILED: S.RESTARTING,
        H.DRAIN: S.DRAINING,
        H.STOPPED: S.STOPPED,
    },
    S.DRAINING: {
        H.LOADED: S.DRAINING,
        H.FAILED: S.DRAINING,
        H.DIED: S.DRAINING,
        H.DRAIN: S.DRAINING,
        H.STOPPED: S.STOPPED,
    },
    S.FAILED: {H.ORDERED_AGAIN: S.RESTARTING, H.DRAIN: S.FAILED, H.STOPPED: S.STOPPED},
    S.STOPPED: {H.DRAIN: S.STOPPED, H.STOPPED: S.STOPPED},
}


class IllegalTransition(Exception):
    """A happening that cannot happen in this state."""


def after(state: ReplicaState, happening: Happening) -> ReplicaState:
    """The state that follows. Raises IllegalTransition."""
    try:
        return TRANSITIONS[state][happening]
    except KeyError:
        raise IllegalTransition(f"{happening.name} in state {state}") from None
