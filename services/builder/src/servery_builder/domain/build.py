"""The life of a build, as one table.

A build is ordered (``QUEUED``), claimed by one builder at a time (``BUILDING``) and ends in a state that never
changes again. The database repeats the last rule with a trigger, so that a builder that lost its lease, a
message delivered twice or a mistake in this code cannot change a result somebody already acted on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from servery_common.contracts.builds import Artifacts
from servery_common.contracts.states import BuildState


class BuildEvent(StrEnum):
    """What can happen to a build."""

    CLAIMED = "claimed"  #: a builder took it; also when it takes over from one that died
    RELEASED = "released"  #: the builder that held it is stopping and gave it back
    SUCCEEDED = "succeeded"
    FAILED = "failed"


TRANSITIONS: Mapping[BuildState, Mapping[BuildEvent, BuildState]] = MappingProxyType(
    {
        BuildState.QUEUED: {BuildEvent.CLAIMED: BuildState.BUILDING},
        BuildState.BUILDING: {
            # Only when the lease of the builder that held it ran out.
            BuildEvent.CLAIMED: BuildState.BUILDING,
            BuildEvent.RELEASED: BuildState.QUEUED,
            BuildEvent.SUCCEEDED: BuildState.SUCCEEDED,
            BuildEvent.FAILED: BuildState.FAILED,
        },
        BuildState.SUCCEEDED: {},
        BuildState.FAILED: {},
        BuildState.CANCELED: {},
    }
)


def next_state(state: BuildState, event: BuildEvent) -> BuildState | None:
    """Return the state that follows, or None when ``event`` changes nothing in ``state``."""
    return TRANSITIONS[state].get(event)


def is_terminal(state: BuildState) -> bool:
    """Whether nothing can change a build in this state."""
    return not TRANSITIONS[state]


class FailureCode(StrEnum):
    """Why a build cannot succeed: the codes of ``BuildFailed``."""

    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    ARTIFACT_MISSING = "ARTIFACT_MISSING"
    PACKAGE_NOT_FOUND = "PACKAGE_NOT_FOUND"
    VERSION_CONFLICT = "VERSION_CONFLICT"
    PYTHON_NOT_AVAILABLE = "PYTHON_NOT_AVAILABLE"
    INSTALL_FAILED = "INSTALL_FAILED"
    IMPORT_ERROR = "IMPORT_ERROR"
    LOAD_FAILED = "LOAD_FAILED"
    PREDICT_FAILED = "PREDICT_FAILED"
    TIMED_OUT = "TIMED_OUT"
    INTERNAL_ERROR = "INTERNAL_ERROR"


@dataclass(frozen=True)
class Failure:
    """The end of a build that a person has to do something about."""

    code: FailureCode
    reason: str
    """One plain sentence: what is wrong and what to do."""


@dataclass(frozen=True)
class Success:
    """The end of a build whose model loaded and predicted."""

    artifacts: Artifacts
    environment_cached: bool
    seconds: float


class BuildError(Exception):
    """Raised by a phase when the build cannot succeed; carries the failure to report."""

    def __init__(self, code: FailureCode, reason: str) -> None:
        super().__init__(reason)
        self.failure = Failure(code, reason)


@dataclass(frozen=True)
class Build:
    """A build somebody ordered, as the pipeline needs it."""

    build_id: str
    model_name: str
    model_version: str
    environment_vars: Mapping[str, str]
    attempts: int
    """How often a builder has started it, this time included."""
