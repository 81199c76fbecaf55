"""What Servery can be told about an endpoint beyond Databricks' API: tags whose key begins with ``servery.``. Pure.

Tags, because every client can set them, at the creation and later, and because a change of them deploys nothing.
All such keys are in ``KEYS``; another one, or a wrong value, is refused with a sentence that says what would be right.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from servery_common.errors import InvalidParameter

PREFIX = "servery."

SCALE_TO_ZERO_SECONDS = 1800.0
"""Databricks' documented time without requests."""
SECONDS_TO_ZERO = (1.0, 7 * 86400.0)
"""From short enough for a demonstration to a week."""
TARGET_CONCURRENCY = (0.01, 1000.0)
MAX_ROLLOUT_STEPS = 20

Rollout = Literal["immediate", "guarded"]


@dataclass(frozen=True, slots=True)
class RolloutOptions:
    """How a new config version takes over the traffic."""

    kind: Rollout = "immediate"
    steps: tuple[int, ...] = (5, 25, 50)
    """Percentages of the traffic the new version gets, one after the other, before it gets all of it."""
    step_seconds: float = 60.0
    max_error_increase: float = 1.0
    """Percentage points by which the new version's share of errors may be above that of the old one."""
    max_latency_ratio: float = 1.5
    """How many times as long as the old version the new one may take."""
    min_requests: int = 50
    """Requests the new version must have answered before a step is judged."""


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """The options of one endpoint."""

    scale_to_zero_seconds: float | None = None
    """None: as long as the installation's setting says."""
    target_concurrency: float | None = None
    """Requests one replica should have at a time; None: learned."""
    shadows: tuple[tuple[str, int], ...] = ()
    """(served entity name, share of the endpoint's requests, in percent, that is sent there too)"""
    rollout: RolloutOptions = RolloutOptions()


def check_options(tags: Iterable[tuple[str, str]]) -> None:
    """Raise InvalidParameter for a key below ``servery.`` that there is not, or a value it cannot have."""
    for key, value in tags:
        if key.lower().startswith(PREFIX):
            _parsed(key, value)


def options_of(tags: Iterable[tuple[str, str]]) -> EndpointOptions:
    """Return the options that tags stand for.

    What cannot be read counts as not set: tags that were stored before a key had a meaning must not keep the endpoint
    from being looked after.
    """
    options: dict[str, Any] = {}
    rollout: dict[str, Any] = {}
    for key, value in tags:
        if not key.startswith(PREFIX):
            continue
        try:
            parsed = _parsed(key, value)
        except InvalidParameter:
            continue
        field = KEYS[key].field
        (rollout if field.startswith("rollout.") else options)[field.removeprefix("rollout.")] = parsed
    return EndpointOptions(**options, rollout=RolloutOptions(**rollout))


def check_shadow_names(tags: Iterable[tuple[str, str]], served: Iterable[str]) -> None:
    """Raise InvalidParameter when requests are to be copied to a served entity that is not among ``served``."""
    names = tuple(dict.fromkeys(served))
    value = dict(tags).get(_SHADOW)
    if value is None or not names:
        return
    for name, _ in _shadows(value):
        if name not in names:
            raise _refused(
                _SHADOW, value, f"No served entity is called '{name}'; there are: {', '.join(names)}."
            )


@dataclass(frozen=True, slots=True)
class _Key:
    field: str
    """Of EndpointOptions, or of its ``rollout``."""
    parse: Callable[[str], object]
    """Raises ValueError."""
    right: str
    """What would be right, after "Give"."""


def _parsed(key: str, value: str) -> object:
    known = KEYS.get(key)
    if known is None:
        raise InvalidParameter(
            f"The tag '{_short(key)}' (value '{_short(value)}') is not known. Keys that begin with '{PREFIX}' are "
            f"Servery's own options: {', '.join(KEYS)}."
        )
    try:
        return known.parse(value)
    except ValueError:
        raise _refused(key, value, f"Give {known.right}.") from None


def _refused(key: str, value: str, right: str) -> InvalidParameter:
    return InvalidParameter(f"The tag '{key}' cannot be '{_short(value)}'. {right}")


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:100] + "…"


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        # Not float() alone: it takes "1_000", "nan" and digits of other scripts.
        if not text.isascii() or "_" in text:
            raise ValueError(text)
        return _within(float(text), low, high)

    return parse


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit()):
            raise ValueError(text)
        return int(_within(int(text), low, high))

    return parse


def _within(number: float, low: float, high: float) -> float:
    if not low <= number <= high:  # so neither is nan
        raise ValueError(number)
    return number


def _kind(text: str) -> Rollout:
    if text not in ("immediate", "guarded"):
        raise ValueError(text)
    return text


def _steps(text: str) -> tuple[int, ...]:
    steps = tuple(_whole(1, 99)(part.strip()) for part in text.split(","))
    if len(steps) > MAX_ROLLOUT_STEPS or any(a >= b for a, b in pairwise(steps)):
        raise ValueError(text)
    return steps


def _shadows(text: str) -> tuple[tuple[str, int], ...]:
    shadows: dict[str, int] = {}
    for part in text.split(","):
        name, _, percentage = part.strip().rpartition("=")
        if not name or name in shadows:
            raise ValueError(text)
        shadows[name] = _whole(0, 100)(percentage)
    return tuple(shadows.items())


_SHADOW = "servery.shadow"

KEYS: Mapping[str, _Key] = {
    "servery.scale_to_zero_seconds": _Key(
        "scale_to_zero_seconds",
        _number(*SECONDS_TO_ZERO),
        "a number of seconds without a request, from 1 to 604800 (a week)",
    ),
    "servery.target_concurrency": _Key(
        "target_concurrency",
        _number(*TARGET_CONCURRENCY),
        "how many requests one replica should have at a time, a number from 0.01 to 1000; without the tag it is "
        "learned",
    ),
    _SHADOW: _Key(
        "shadows",
        _shadows,
        "the name of a served entity and a whole percentage of the endpoint's requests from 0 to 100, such as "
        "iris-2=10; several with commas between",
    ),
    "servery.rollout": _Key("rollout.kind", _kind, "'immediate' or 'guarded'"),
    "servery.rollout_steps": _Key(
        "rollout.steps",
        _steps,
        "growing whole percentages from 1 to 99 with commas between, such as 5,25,50; at most "
        f"{MAX_ROLLOUT_STEPS}",
    ),
    "servery.rollout_step_seconds": _Key(
        "rollout.step_seconds", _number(1.0, 86400.0), "a number of seconds from 1 to 86400 (a day)"
    ),
    "servery.rollout_max_error_increase": _Key(
        "rollout.max_error_increase", _number(0.0, 100.0), "a number of percentage points from 0 to 100"
    ),
    "servery.rollout_max_latency_ratio": _Key(
        "rollout.max_latency_ratio",
        _number(1.0, 100.0),
        "how many times as long as before a request may take, a number from 1 to 100",
    ),
    "servery.rollout_min_requests": _Key(
        "rollout.min_requests", _whole(0, 1_000_000), "a whole number of requests from 0 to 1000000"
    ),
}
"""Every option. What each means is said at the fields of ``EndpointOptions`` and ``RolloutOptions``."""
