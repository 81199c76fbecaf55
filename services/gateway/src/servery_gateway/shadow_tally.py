"""What became of copies of requests, counted for each served entity they are sent to. Pure."""

from servery_common.contracts.metrics import ShadowComparisons
from servery_gateway.activity import Activity
from servery_gateway.request_meter import LatencyHistogram

IDLE_ROUNDS = 30
"""A served entity that was sent nothing is reported in one report of so many."""


class ShadowTally:
    """The counters of one served entity."""

    __slots__ = ("different", "endpoint_id", "failed", "latency", "primary_latency", "same", "skipped")

    def __init__(self, endpoint_id: str) -> None:
        self.endpoint_id = endpoint_id
        self.same = 0
        self.different = 0
        self.failed = 0
        self.skipped = 0
        self.latency = LatencyHistogram()
        self.primary_latency = LatencyHistogram()

    def read(self, served_entity_id: str) -> ShadowComparisons:
        """Return the totals so far."""
        return ShadowComparisons(
            endpoint_id=self.endpoint_id,
            served_entity_id=served_entity_id,
            same=self.same,
            different=self.different,
            failed=self.failed,
            skipped=self.skipped,
            latency=self.latency.read(),
            primary_latency=self.primary_latency.read(),
        )


class ShadowTallies:
    """All of them, by served entity id. One that is no shadow any more is forgotten with its served entity."""

    def __init__(self) -> None:
        self._tallies: dict[str, ShadowTally] = {}
        self._activity: Activity[str] = Activity(IDLE_ROUNDS)

    def add(self, endpoint_id: str, served_entity_id: str) -> None:
        """Count for this one, too; what was counted of it is kept."""
        if served_entity_id not in self._tallies:
            self._tallies[served_entity_id] = ShadowTally(endpoint_id)
            self._activity.add(served_entity_id)

    def remove(self, served_entity_id: str) -> None:
        """The served entity is gone."""
        if self._tallies.pop(served_entity_id, None) is not None:
            self._activity.remove(served_entity_id)

    def changing(self, served_entity_id: str) -> ShadowTally | None:
        """Return the counters, to add to them; None when the served entity is gone."""
        self._activity.touch(served_entity_id)
        return self._tallies.get(served_entity_id)

    def read(self) -> list[ShadowComparisons]:
        """Return the totals of those that are to be reported now."""
        due = self._activity.due()
        for served_entity_id in due:
            self._activity.rest(served_entity_id)
        return [self._tallies[one].read(one) for one in due]
