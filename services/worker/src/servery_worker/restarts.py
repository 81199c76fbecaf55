"""When a replica's model process is started again after it ended, and what is said of that.

Pure. A process that ends is replaced at once: most often one bad request ended it. Again and again:

=================================== ============================== ===========================================
the process                          counts as                      next start
=================================== ============================== ===========================================
was ready for 10 s or longer         the first failure              at once
answered requests, then ended soon   one failure more, fruitful     at once three times, then after 0.25 s
answered nothing, or did not load    one failure more, fruitless    at once, then after 0.5, 1, 2 … 30 s
=================================== ============================== ===========================================

A model that answers between its crashes serves: waiting longer would take more requests from those who ask it than
the crashes do, and the pause is only there so that a processor is not spent on starting. One that never answers costs
those who wait for it nothing by waiting.
"""

from dataclasses import dataclass, replace

HEALTHY_SECONDS = 10.0
FREE_STARTS = 3
FRUITFUL_DELAY_SECONDS = 0.25
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Restarts:
    """The failures that followed each other so far."""

    failures: int = 0
    """In a row, fruitful or not."""
    fruitless: int = 0
    """The last so many of them without one answer."""

    def after(self, *, ready_seconds: float, answered: int) -> "Restarts":
        """A process ended that was ready for so long (0: it did not load) and answered so many requests."""
        before = Restarts() if ready_seconds >= HEALTHY_SECONDS else self
        return replace(
            before, failures=before.failures + 1, fruitless=0 if answered else before.fruitless + 1
        )

    @property
    def delay(self) -> float:
        """Seconds until the next start."""
        if self.fruitless > 1:
            return min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** min(self.fruitless - 2, 16))
        return FRUITFUL_DELAY_SECONDS if self.failures > FREE_STARTS else 0.0

    def explain(self, reason: str) -> str:
        """The reason with what is done about it, for people."""
        if self.failures <= 1:
            return reason
        again = f"started again in {self.delay:g} s" if self.delay else "started again at once"
        return f"{reason} ({self.failures} times in a row; {again})"
