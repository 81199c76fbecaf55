"""Guarded rollouts: traffic moves to a new config in steps, for as long as it does no worse than the active one. Pure.

At each step the new version has a share of the traffic, and what gateways counted since the step began is compared: the
share of answers of 400 and above, and the mean time of a request. Both sides serve the same callers in the same
minutes, so what a bad client or a slow network does happens to both.

The share of errors is judged by the lower end of its Wilson score interval (Wilson 1927), one-sided 95 %: the new
version is worse when even that is above the active one's share and what it may be more. So one unlucky request among
the first few rolls nothing back, and a version that fails every request is found out after a handful.

A step waits for requests to judge by, but not for ever: for ``PATIENCE_STEPS`` times its length while there are too
few, and only its own length while there are none at all. Nobody is harmed by a version that nobody calls.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import sqrt

from servery_common.contracts.states import ReplicaState
from servery_controller.domain.adoption import source_of
from servery_controller.domain.endpoint import (
    Config,
    Deployment,
    EntityHealth,
    EntityPhase,
    Observation,
    ServedEntity,
)
from servery_controller.domain.endpoint_options import RolloutOptions
from servery_controller.domain.sightings import reasons

Z_95 = 1.645
FEWEST_ERRORS = 3
"""With fewer errors nothing is rolled back, whatever share they are."""
LATENCY_SLACK_MS = 5.0
"""What a request may take longer whatever the ratio: a share of a millisecond is no reason to roll back."""
FEWEST_FOR_LATENCY = 20
"""Answers on either side before their means are compared."""
PATIENCE_STEPS = 10
"""A version that gets too few requests to be judged moves on after so many times the length of a step."""
PROGRESS = "Rollout step"
"""What is said of a rollout that is under way begins so."""
QUIET_SECONDS = 10.0
"""Without a request for so long there was none: gateways tell of each within two seconds."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Stay at this step."""


@dataclass(frozen=True, slots=True)
class Advance:
    """Go to the next step; after the last one the new version has all of the traffic."""


@dataclass(frozen=True, slots=True)
class RollBack:
    """The active version gets all of the traffic again."""

    reason: str


Verdict = Wait | Advance | RollBack


def is_guarded(config: Config, deployment: Deployment, options: RolloutOptions) -> bool:
    """Whether a config that is ready gets its traffic in steps: it holds something new, to be compared with the old."""
    return (
        options.kind == "guarded"
        and bool(options.steps)
        and deployment.active is not None
        and bool(new_entities(config, deployment))
    )


def new_entities(config: Config, deployment: Deployment) -> tuple[ServedEntity, ...]:
    """The served entities of a config that do not go on with replicas of the active one."""
    return tuple(e for e in deployment.entities_of(config.version) if source_of(e, deployment) is None)


def replaced_entities(config: Config, deployment: Deployment) -> tuple[ServedEntity, ...]:
    """The served entities of the active config that the new one is compared with: those it does not go on with."""
    active = deployment.active
    if active is None:
        return ()
    entities = deployment.entities_of(active.version)
    kept = {e.adopts for e in deployment.entities_of(config.version)}
    return tuple(e for e in entities if e.id not in kept) or entities


def share_of(config: Config, options: RolloutOptions) -> int:
    """Return the percentage of the traffic that a config that is rolling gets now."""
    index = 0 if config.rollout is None else config.rollout.index
    return options.steps[index] if index < len(options.steps) else 100


def traffic_shares(deployment: Deployment, options: RolloutOptions) -> dict[str, int]:
    """Return the weight of each served entity that gateways are told of, by id; weights are only compared.

    Without a rollout they are the percentages of the active config. During one they are of 10,000: what the active
    config has left, and the new one's part; what goes on with the replicas of an active entity is that entity's.
    """
    active, rolling = deployment.active, deployment.rolling
    if active is None:
        return {}
    shares = _percentages(active, deployment)
    if rolling is None:
        return shares
    moved = share_of(rolling, options)
    weights = {entity_id: share * (100 - moved) for entity_id, share in shares.items()}
    for entity_id, share in _percentages(rolling, deployment).items():
        entity = next(e for e in deployment.entities if e.id == entity_id)
        source = source_of(entity, deployment)
        served_by = entity_id if source is None else source.id
        weights[served_by] = weights.get(served_by, 0) + share * moved
    return weights


def _percentages(config: Config, deployment: Deployment) -> dict[str, int]:
    shares = {r.served_entity_name: r.traffic_percentage for r in config.routes}
    return {e.id: shares.get(e.spec.name, 0) for e in deployment.entities_of(config.version)}


def judge_rollout(
    config: Config, deployment: Deployment, seen: Observation, options: RolloutOptions, now: datetime
) -> Verdict:
    """Return what becomes of a config that is rolling."""
    if options.kind != "guarded" or config.rollout is None or deployment.active is None:
        return Advance()
    fresh, old = new_entities(config, deployment), replaced_entities(config, deployment)
    for entity in fresh:
        # A process that ends and is started again shows in the answers; one that cannot be started has no end.
        failures = reasons(entity, deployment, seen, ReplicaState.FAILED)
        if entity.phase is EntityPhase.RECOVERING and failures:
            return RollBack(f"{entity.spec.name} cannot be started again: {failures}")
    new_health, old_health = _together(fresh, seen), _together(old, seen)
    if why := _worse(new_health, old_health, options):
        return RollBack(f"{why} The new version had {share_of(config, options)} % of the traffic.")
    elapsed = now - config.rollout.began_at
    step = timedelta(seconds=options.step_seconds)
    if elapsed < step:
        return Wait()
    if new_health.requests >= options.min_requests or elapsed >= PATIENCE_STEPS * step:
        return Advance()
    serve = all(e.phase in (EntityPhase.READY, EntityPhase.IDLE) for e in fresh)
    quiet = seen.counted_seconds >= max(options.step_seconds, QUIET_SECONDS)
    return Advance() if serve and quiet and _nobody_calls(new_health, old_health) else Wait()


def progress(
    config: Config, deployment: Deployment, seen: Observation, options: RolloutOptions, now: datetime
) -> str:
    """Say at which step a config that is rolling is, what it waits for, and what comes then.

    With moments rather than durations: what is said is kept, and true until it changes.
    """
    active = deployment.active
    if active is None or config.rollout is None or config.rollout.index >= len(options.steps):
        return ""
    index, began_at = config.rollout.index, config.rollout.began_at
    at = (
        f"{PROGRESS} {index + 1} of {len(options.steps) + 1}: config version {config.version} gets "
        f"{share_of(config, options)} % of the traffic"
    )
    unless = f"{(*options.steps, 100)[index + 1]} %, unless it does worse than version {active.version}."
    step = timedelta(seconds=options.step_seconds)
    new_health = _together(new_entities(config, deployment), seen)
    old_health = _together(replaced_entities(config, deployment), seen)
    if now - began_at < step:
        return f"{at} until {_moment(began_at + step, now)}, then {unless}"
    if _nobody_calls(new_health, old_health):
        return f"{at}. When all gateways have told that nobody calls it, it gets {unless}"
    missing = max(0, options.min_requests - new_health.requests)
    latest = _moment(began_at + PATIENCE_STEPS * step, now)
    return f"{at}. After {missing} more requests to it, or at {latest}, it gets {unless}"


def lower_bound(errors: int, requests: int, z: float = Z_95) -> float:
    """Return the lower end of the Wilson score interval of a share."""
    if requests == 0:
        return 0.0
    share = errors / requests
    centre = share + z * z / (2 * requests)
    spread = z * sqrt(share * (1 - share) / requests + z * z / (4 * requests * requests))
    return max(0.0, (centre - spread) / (1 + z * z / requests))


def _worse(new: EntityHealth, old: EntityHealth, options: RolloutOptions) -> str:
    """Why the new version does worse, with the numbers; empty when nothing shows that it does."""
    old_share = old.errors / old.requests if old.requests else 0.0
    allowed = old_share + options.max_error_increase / 100
    if new.errors >= FEWEST_ERRORS and lower_bound(new.errors, new.requests) > allowed:
        return (
            f"{new.errors} of {new.requests} answers of the new version were errors, and "
            f"{old.errors} of {old.requests} of the old one: the share may be "
            f"{options.max_error_increase:g} percentage points higher."
        )
    if min(new.requests, old.requests) < max(FEWEST_FOR_LATENCY, options.min_requests):
        return ""
    new_ms, old_ms = new.total_ms / new.requests, old.total_ms / old.requests
    if new_ms > old_ms * options.max_latency_ratio + LATENCY_SLACK_MS:
        return (
            f"A request took {new_ms:.1f} ms in the new version and {old_ms:.1f} ms in the old one (means of "
            f"{new.requests} and {old.requests}): it may take {options.max_latency_ratio:g} times as long."
        )
    return ""


def _nobody_calls(new: EntityHealth, old: EntityHealth) -> bool:
    """Whether no request came since this step was first looked at."""
    return not (new.requests or new.in_flight or old.requests or old.in_flight)


def _moment(when: datetime, now: datetime) -> str:
    when, now = when.astimezone(UTC), now.astimezone(UTC)
    return f"{when:%H:%M:%S} UTC" if when.date() == now.date() else f"{when:%Y-%m-%d %H:%M:%S} UTC"


def _together(entities: tuple[ServedEntity, ...], seen: Observation) -> EntityHealth:
    healths = [seen.health.get(e.id, EntityHealth()) for e in entities]
    return EntityHealth(
        requests=sum(h.requests for h in healths),
        errors=sum(h.errors for h in healths),
        total_ms=sum(h.total_ms for h in healths),
        in_flight=sum(h.in_flight for h in healths),
    )
