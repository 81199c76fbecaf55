"""The life of a build, as one table.

A build is ordered (``QUEUED``), claimed by one builder at a time (``BUILDING``) and ends in a state that never
changes again. The database repeats the last rule with a trigger, so that a builder that lost its lease, a
message delivered twice or a mistake in this code cannot change a result somebody already acted on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from servery_common.contracts.builds import Artifacts, FailureCode
from servery_common.contracts.states import BuildState


class BuildEvent(StrEnum):
    """What can happen to a build."""

    CLAIMED = "claimed"  #: a builder took it; also when it takes over from one that died
    RELEASED = "released"  #: the builder that held it is stopping and gave it back
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True)
class Transition:
    """What an event does to a build."""

    before: tuple[BuildState, ...]
    """In any other state the event changes nothing."""
    after: BuildState


TRANSITIONS: Mapping[BuildEvent, Transition] = MappingProxyType(
    {
        # From BUILDING only when the lease of the builder that holds it ran out.
        BuildEvent.CLAIMED: Transition((BuildState.QUEUED, BuildState.BUILDING), BuildState.BUILDING),
        BuildEvent.RELEASED: Transition((BuildState.BUILDING,), BuildState.QUEUED),
        BuildEvent.SUCCEEDED: Transition((BuildState.BUILDING,), BuildState.SUCCEEDED),
        BuildEvent.FAILED: Transition((BuildState.BUILDING,), BuildState.FAILED),
    }
)


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
    served_entity_id: str
    attempts: int
    """How often a builder has started it, this time included."""
