"""Decisions about how many replicas a served entity has, as they are kept and told. Pure.

The scaler decides by load. The controller itself decides two things without it: that an entity at zero which is asked
for has a replica at once, and that replicas are given back where another entity finds no room for its first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from servery_controller.domain.happenings import EndpointEvent, EventStatus, EventType


class DecidedBy(StrEnum):
    """Who decided."""

    SCALER = "scaler"  #: by load
    WAKE = "wake"  #: requests were held for an entity at zero
    CAPACITY = "capacity"  #: a replica was given back for the first replica of another entity


@dataclass(frozen=True, slots=True)
class ScalingDecision:
    """From so many replicas to so many, and why."""

    served_entity_id: str
    served_entity_name: str
    config_version: int
    before: int
    after: int
    reason: str
    decided_by: DecidedBy
    seen: Mapping[str, float] = field(default_factory=dict[str, float])
    """What it was made of, by name."""


def clamp(wanted: int, low: int, high: int, reason: str) -> tuple[int, str]:
    """Return the count within the range, and the reason, which tells if that is not what was wanted."""
    allowed = min(max(wanted, low), high)
    if allowed == wanted:
        return wanted, reason
    return allowed, f"{reason} ({wanted} wanted; the range is {low} to {high})"


def event_of(decision: ScalingDecision) -> EndpointEvent:
    """The decision among the events of its endpoint."""
    return EndpointEvent(
        EventType.SCALING,
        EventStatus.SUCCEEDED,
        f"Scaled from {decision.before} to {count_of('replica', decision.after)}: {decision.reason}",
        decision.config_version,
        decision.served_entity_name,
    )


def woken_because(held: int) -> str:
    """The reason of a wake. Nothing is held when only a copy of a request asked for it."""
    if held == 0:
        return "woken: it is shadowed, and its endpoint is called"
    return f"woken: {count_of('request', held)} {'is' if held == 1 else 'are'} held"


def count_of(noun: str, count: int) -> str:
    """Write ``1 replica``, ``2 replicas``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
