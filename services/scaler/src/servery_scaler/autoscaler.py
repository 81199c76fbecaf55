"""Decide how many replicas a served entity should have, and say why.

Pure: the caller brings what is seen, what was carried over from the decision before, and the time; it applies the
decision and carries the new state over. ``docs/autoscaling.md`` tells it to operators.

* How much room: square-root safety staffing of the load (``staffing.py``), divided by the target concurrency of a
  replica. The load counts requests that run, that wait, and that are held for a first replica.
* Up at once: to what the last seconds' mean needs, or, when demand is far beyond what is ready (panic, as in Knative's
  autoscaler), what the last two seconds need; in a ramp, to what it will need when the replicas are there.
* Down gently: to what the busiest seconds of the whole stable window needed, a share of the replicas at a time, never
  while panicking, and never before a whole stable window was seen without a gap.
* Without data the count stays. To zero after the time set for it without any request, and not before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil

from servery_scaler.staffing import backlog_load, capacity, expected, peak, recent, rise

MEAN_LAG = 1.0
"""Seconds by which what is seen is old: a gateway reports each second what was, on average, in that second."""


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """How eagerly to decide; ``SERVERY_SCALER_…`` sets each (``settings.py`` says what each means)."""

    stable_window: float = 120.0
    panic_window: float = 2.0
    panic_threshold: float = 2.0
    panic_hold: float = 20.0
    up_window: float = 5.0
    safety: float = 0.7
    drain_seconds: float = 0.3
    down_share: float = 0.1
    down_interval: float = 2.0
    learn_seconds: float = 30.0
    stale_seconds: float = 5.0
    """Data that is older counts as missing."""


@dataclass(frozen=True, slots=True)
class ScalingSpec:
    """What a served entity may have."""

    min_replicas: int
    max_replicas: int
    target_concurrency: float
    """Requests one replica should have at a time, as learned or pinned."""
    scale_to_zero_seconds: float = 1800.0


@dataclass(frozen=True, slots=True)
class Observation:
    """What is seen of a served entity now, summed over gateways."""

    desired_replicas: int
    """What the controller aims at."""
    ready_replicas: int
    loads: Sequence[float] = ()
    """The offered load of each second (``staffing.offered_load``), oldest first, at most a stable window's."""
    running: float = 0.0
    waiting: float = 0.0
    """Queued, or held for a first replica."""
    service_seconds: float = 0.0
    """Mean time in a slot; 0: not known."""
    heard_seconds_ago: float | None = 0.0
    """Since a gateway told of it; None: none that still reports ever did."""
    watched_seconds: float = 0.0
    """Since when it is watched without a gap in the data."""
    idle_seconds: float = 0.0
    """Since the last request that ran, waited or ended, or since it is watched."""
    startup_seconds: float = 2.0
    """From asking for a replica to its being ready."""


@dataclass(frozen=True, slots=True)
class ScalingState:
    """What one decision leaves to the next."""

    panic_until: float | None = None
    lowered_at: float | None = None


@dataclass(frozen=True, slots=True)
class ScaleDecision:
    """How many, why, for people, and the numbers it was made of."""

    desired_replicas: int
    reason: str
    state: ScalingState
    seen: dict[str, float] = field(default_factory=dict[str, float])


def decide(
    spec: ScalingSpec, policy: ScalingPolicy, seen: Observation, state: ScalingState, now: float
) -> ScaleDecision:
    """Return the replica count for one served entity. ``now`` is in seconds, of the clock ``state`` is of."""
    need = _need(spec, policy, seen)
    case = _Case(spec, policy, seen, need, _panic(spec, policy, seen, need, state, now), now)
    desired, reason, state = _desired(case)
    numbers = {
        "running": seen.running,
        "waiting": seen.waiting,
        "load": need.load,
        "peak_load": need.peak,
        "growth_per_second": need.growth,
        "service_seconds": seen.service_seconds,
        "target_concurrency": spec.target_concurrency,
        "startup_seconds": seen.startup_seconds,
        "ready_replicas": float(seen.ready_replicas),
        "replicas_needed_now": float(need.now),
        "replicas_needed_in_window": float(need.window),
        "panicking": float(state.panic_until is not None),
        "idle_seconds": seen.idle_seconds,
        "watched_seconds": seen.watched_seconds,
    }
    return ScaleDecision(desired, reason, state, {name: round(value, 3) for name, value in numbers.items()})


@dataclass(frozen=True, slots=True)
class _Need:
    """Replicas, not yet within their range, and the loads they follow from."""

    load: float
    growth: float
    peak: float
    now: int
    window: int
    ratio: float
    """Load of the panic window to what the ready replicas should have."""


@dataclass(frozen=True, slots=True)
class _Case:
    """All that a decision is made of."""

    spec: ScalingSpec
    policy: ScalingPolicy
    seen: Observation
    need: _Need
    state: ScalingState
    now: float

    @property
    def load(self) -> str:
        seen = self.seen
        running = f"{seen.running:.1f} running, {seen.waiting:.1f} waiting"
        return f"{self.need.load:.1f} requests at a time ({running})"

    @property
    def target(self) -> str:
        return f"{self.spec.target_concurrency:.3g} for each replica"

    @property
    def window(self) -> str:
        return f"{self.policy.stable_window:.0f} s"

    @property
    def is_missing(self) -> bool:
        heard = self.seen.heard_seconds_ago
        return heard is None or heard > self.policy.stale_seconds

    @property
    def may_be_zero(self) -> bool:
        """Whether it is allowed, and nobody asked for it for as long as was set."""
        seen = self.seen
        if self.spec.min_replicas > 0 or seen.idle_seconds < self.spec.scale_to_zero_seconds:
            return False
        return seen.waiting <= 0 and not any(seen.loads[-max(1, round(self.policy.up_window)) :])


_Outcome = tuple[int, str, ScalingState]


def _need(spec: ScalingSpec, policy: ScalingPolicy, seen: Observation) -> _Need:
    width = max(1, round(policy.up_window))
    backlog = backlog_load(seen.waiting, seen.service_seconds, policy.drain_seconds)
    load = recent(seen.loads, width)
    sudden = recent(seen.loads, max(1, round(policy.panic_window)))
    ratio = (sudden + backlog) / (spec.target_concurrency * max(1, seen.ready_replicas))
    growth = rise(seen.loads)
    coming = expected(load, growth, seen.startup_seconds + MEAN_LAG + width / 2)
    if ratio >= policy.panic_threshold:
        coming = max(coming, sudden)
    busiest = peak(seen.loads, width)

    def replicas(load: float, more: float) -> int:
        # How much waits is known: it needs no room for chance.
        room = capacity(load, policy.safety, seen.startup_seconds) + more
        return ceil(round(room / spec.target_concurrency, 6))

    return _Need(
        load=load,
        growth=growth,
        peak=busiest,
        now=replicas(coming, backlog),
        window=replicas(busiest, 0.0),
        ratio=ratio,
    )


def _panic(
    spec: ScalingSpec,
    policy: ScalingPolicy,
    seen: Observation,
    need: _Need,
    state: ScalingState,
    now: float,
) -> ScalingState:
    if need.ratio >= policy.panic_threshold and seen.ready_replicas < spec.max_replicas:
        return replace(state, panic_until=now + policy.panic_hold)
    if state.panic_until is not None and now >= state.panic_until:
        return replace(state, panic_until=None)
    return state


def _desired(case: _Case) -> _Outcome:
    spec, seen, need, state = case.spec, case.seen, case.need, case.state
    lowest, highest = max(spec.min_replicas, 0), max(spec.max_replicas, spec.min_replicas, 1)
    current = min(max(seen.desired_replicas, lowest), highest)
    if current != seen.desired_replicas:
        return current, f"{_replicas(current)}: the range is {lowest} to {highest}", state
    if case.is_missing and seen.waiting <= 0:
        heard = seen.heard_seconds_ago
        since = "no gateway tells of it" if heard is None else f"no gateway was heard for {heard:.0f} s"
        return current, f"held at {current}: {since}, and missing data is no reason to change", state
    wanted = min(max(need.now, lowest, 1 if seen.waiting > 0 or need.load > 0 else 0), highest)
    if wanted > current:
        grows = f", growing by {need.growth:.1f}/s" if need.growth > 0 else ""
        capped = f"; {need.now} were needed, {highest} are allowed" if need.now > highest else ""
        return wanted, f"up from {current} to {wanted}: {case.load}{grows}, {case.target}{capped}", state
    if case.is_missing:
        return current, f"held at {current}: {case.load} by the last word, and nothing newer", state
    return _down(case, current, lowest)


def _down(case: _Case, current: int, lowest: int) -> _Outcome:
    seen, need, state = case.seen, case.need, case.state
    floor = 0 if case.may_be_zero else max(need.window, need.now, lowest, 1)
    if floor >= current:
        left = case.spec.scale_to_zero_seconds - seen.idle_seconds
        if current == 1 and lowest == 0 and seen.idle_seconds > 0 and left > 0:
            return current, f"stays at 1: without a request it is scaled to zero in {left:.0f} s", state
        busiest = f"at most {need.peak:.1f} in {case.window}"
        return current, f"stays at {current}: {case.load}, {case.target}; {busiest}", state
    if floor == 0:  # Idle is only what was watched: after a restart the time begins anew.
        idle = f"no request for {seen.idle_seconds:.0f} s, {case.spec.scale_to_zero_seconds:.0f} s are set"
        return 0, f"from {current} to zero: {idle}", replace(state, lowered_at=case.now)
    if state.panic_until is not None:
        left = f"no way down for {state.panic_until - case.now:.0f} s"
        return current, f"held at {current}: demand had outrun it, {left}; {case.load}", state
    if seen.watched_seconds < case.policy.stable_window:
        watched = f"watched for {seen.watched_seconds:.0f} s of the {case.window} that a way down takes"
        return current, f"held at {current}: {watched}; {case.load}", state
    if state.lowered_at is not None and case.now - state.lowered_at < case.policy.down_interval:
        return current, f"held at {current} on the way down to {floor}: {case.load}", state
    lowered = max(floor, current - max(1, int(current * case.policy.down_share)))
    busiest = f"at most {need.peak:.1f} requests at a time in {case.window}"
    reason = f"down from {current} to {lowered}: {busiest}; {case.load}, {case.target}"
    return lowered, reason, replace(state, lowered_at=case.now)


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"
