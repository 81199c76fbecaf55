"""Served entities whose model is built once more, as what its replicas are made of is gone. Pure.

Images of an engine can be removed by anybody. An entity that has none any more keeps its phase, and has no artifacts
until another build has made some: replicas that run go on, no other is started meanwhile
(docs/decisions/0032-engines-that-fail-are-waited-for.md).
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from servery_common.contracts.states import BuildState
from servery_controller.domain.endpoint import EntityPhase, Observation, ServedEntity

TRY_AGAIN_AFTER = timedelta(minutes=5)
"""A build that failed is followed by another one this long after it was ordered: what it lacked may be back."""
BUILT_AGAIN = "The model is built; starting replicas."

_BUILT_ONCE = (EntityPhase.STARTING, EntityPhase.READY, EntityPhase.IDLE, EntityPhase.RECOVERING)


def is_rebuilt(entity: ServedEntity) -> bool:
    """Whether the entity was built and has to be built again."""
    return entity.artifacts is None and entity.phase in _BUILT_ONCE


def to_rebuild(entity: ServedEntity, problem: str, build_id: str, now: datetime) -> ServedEntity:
    """Return the entity without what is gone, waiting for another build. ``problem`` says what is gone, for people."""
    message = f"{problem} The model is built again."
    return replace(entity, artifacts=None, build_id=build_id, build_requested_at=now, message=message)


def with_new_artifacts(entity: ServedEntity, seen: Observation) -> ServedEntity:
    """Return the entity with what its new build has made, if it has ended well."""
    status = seen.builds.get(entity.build_id)
    if status is None or status.state is not BuildState.SUCCEEDED or status.artifacts is None:
        return entity
    return replace(entity, artifacts=status.artifacts, message=BUILT_AGAIN)


def rebuild_message(entity: ServedEntity, seen: Observation) -> str:
    """Return how far the new build is, for people."""
    status = seen.builds.get(entity.build_id)
    if status is None or status.state is None:
        return entity.message
    if status.state is BuildState.FAILED:
        minutes = TRY_AGAIN_AFTER.total_seconds() / 60
        return (
            f"The model's image is gone and could not be built again; tried again after {minutes:.0f} minutes."
            f" {status.reason}"
        )
    return f"The model's image is gone, and built again: {status.step}" if status.step else entity.message


def has_failed(entity: ServedEntity, seen: Observation) -> bool:
    """Whether its new build could not succeed."""
    status = seen.builds.get(entity.build_id)
    return status is not None and status.state is BuildState.FAILED


def to_try_again(
    entities: Iterable[ServedEntity], seen: Observation, now: datetime
) -> tuple[ServedEntity, ...]:
    """Return those whose new build failed long enough ago, and that replicas are wanted of."""
    return tuple(
        e
        for e in entities
        if is_rebuilt(e)
        and e.desired_replicas > 0
        and has_failed(e, seen)
        and now - e.build_requested_at >= TRY_AGAIN_AFTER
    )
