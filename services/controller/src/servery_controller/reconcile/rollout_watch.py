"""What gateways counted of the served entities of a rollout since its present step began.

Gateways tell totals since they began, so what was told when the step was first looked at is taken off. It is only
remembered here: another leader begins to count when it takes over, and judges later, never on less. A gateway it had
not heard of yet then is not one that began at zero: gateways tell of an idle entity about once a minute.
"""

from collections.abc import Callable, Mapping

from servery_controller.domain.endpoint import Deployment, EntityHealth
from servery_controller.domain.rollout import new_entities, replaced_entities

Answered = Callable[[str], Mapping[str, EntityHealth]]
"""Served entity id -> totals by gateway id."""
_Baseline = dict[str, dict[str, EntityHealth]]

HEARD_ALL_SECONDS = 65.0
"""After so long every gateway has told of every served entity: one that is new then has begun since."""


class RolloutWatch:
    """Knows the totals at the beginning of each step that is under way. ``clock`` returns monotonic seconds."""

    def __init__(self, answered: Answered, clock: Callable[[], float]) -> None:
        self._answered = answered
        self._clock = clock
        self._listening_since = clock()
        self._begun: dict[str, tuple[tuple[int, int], _Baseline]] = {}
        """By endpoint id: config version and step, and the totals then."""

    def health(self, deployment: Deployment) -> dict[str, EntityHealth]:
        """Return how the entities of a rollout did since its step began, by id; nothing without a rollout."""
        rolling, endpoint_id = deployment.rolling, deployment.endpoint.id
        if rolling is None or rolling.rollout is None:
            self._begun.pop(endpoint_id, None)
            return {}
        entities = (*new_entities(rolling, deployment), *replaced_entities(rolling, deployment))
        present = {e.id: self._answered(e.id) for e in entities}
        step = (rolling.version, rolling.rollout.index)
        begun = self._begun.get(endpoint_id)
        if begun is None or begun[0] != step:
            baseline = {entity_id: dict(totals) for entity_id, totals in present.items()}
            begun = self._begun[endpoint_id] = (step, baseline)
        if self._clock() - self._listening_since < HEARD_ALL_SECONDS:
            for entity_id, totals in present.items():
                known = begun[1].setdefault(entity_id, {})
                for gateway, now in totals.items():
                    known.setdefault(gateway, now)
        return {entity_id: _since(begun[1].get(entity_id, {}), now) for entity_id, now in present.items()}


def _since(then: Mapping[str, EntityHealth], now: Mapping[str, EntityHealth]) -> EntityHealth:
    """The difference, over all gateways. One that was not there then began at zero."""
    requests, errors, total_ms = 0, 0, 0.0
    for gateway, totals in now.items():
        before = then.get(gateway, EntityHealth())
        requests += totals.requests - before.requests
        errors += totals.errors - before.errors
        total_ms += totals.total_ms - before.total_ms
    return EntityHealth(requests, errors, total_ms)
