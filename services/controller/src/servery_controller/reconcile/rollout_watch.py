"""What gateways counted of the served entities of a rollout since its present step began.

Gateways tell totals since they began, so what was told when the step was first looked at is taken off. It is only
remembered here: another leader begins to count when it takes over, and judges later, never on less. A gateway it had
not heard of yet then is not one that began at zero: gateways tell of an idle entity about once a minute.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from servery_controller.domain.endpoint import Deployment, EntityHealth
from servery_controller.domain.rollout import new_entities, replaced_entities

Answered = Callable[[str, float], Mapping[str, EntityHealth]]
"""Served entity id, and now by the clock -> totals by gateway id."""
_Baseline = dict[str, dict[str, EntityHealth]]

HEARD_ALL_SECONDS = 65.0
"""After so long every gateway has told of every served entity: one that is new then has begun since."""


@dataclass(slots=True)
class _Beginning:
    """When a step was first looked at, in the clock's seconds, and the totals then."""

    step: tuple[int, int]
    """Config version and step."""
    at: float
    totals: _Baseline = field(default_factory=dict[str, dict[str, EntityHealth]])


class RolloutWatch:
    """Knows the totals at the beginning of each step that is under way. ``clock`` returns monotonic seconds."""

    def __init__(self, answered: Answered, clock: Callable[[], float]) -> None:
        self._answered = answered
        self._clock = clock
        self._listening_since = clock()
        self._begun: dict[str, _Beginning] = {}
        """By endpoint id."""

    def health(self, deployment: Deployment) -> dict[str, EntityHealth]:
        """Return how the entities of a rollout did since its step began, by id; nothing without a rollout."""
        rolling, endpoint_id = deployment.rolling, deployment.endpoint.id
        if rolling is None or rolling.rollout is None:
            self._begun.pop(endpoint_id, None)
            return {}
        entities = (*new_entities(rolling, deployment), *replaced_entities(rolling, deployment))
        present = {e.id: self._answered(e.id, self._clock()) for e in entities}
        step = (rolling.version, rolling.rollout.index)
        begun = self._begun.get(endpoint_id)
        if begun is None or begun.step != step:
            begun = self._begun[endpoint_id] = _Beginning(step, self._clock())
            begun.totals = {entity_id: dict(totals) for entity_id, totals in present.items()}
        if self._clock() - self._listening_since < HEARD_ALL_SECONDS:
            for entity_id, totals in present.items():
                known = begun.totals.setdefault(entity_id, {})
                for gateway, now in totals.items():
                    known.setdefault(gateway, now)
        return {entity_id: _since(begun.totals.get(entity_id, {}), now) for entity_id, now in present.items()}

    def counted_seconds(self, endpoint_id: str) -> float:
        """Return for how long the present step of an endpoint's rollout has been looked at; 0 without a rollout."""
        begun = self._begun.get(endpoint_id)
        return 0.0 if begun is None else self._clock() - begun.at


def _since(then: Mapping[str, EntityHealth], now: Mapping[str, EntityHealth]) -> EntityHealth:
    """The difference, over all gateways. One that was not there then began at zero."""
    requests, errors, total_ms, in_flight = 0, 0, 0.0, 0
    for gateway, totals in now.items():
        before = then.get(gateway, EntityHealth())
        requests += totals.requests - before.requests
        errors += totals.errors - before.errors
        total_ms += totals.total_ms - before.total_ms
        in_flight += totals.in_flight
    return EntityHealth(requests, errors, total_ms, in_flight)
