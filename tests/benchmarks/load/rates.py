"""What a series of answers says about a server: how fast it was while steady, when it was normal again. Pure."""

import math
from collections.abc import Sequence

from tests.benchmarks.load.client import Outcome, percentile

NORMAL_SHARE = 90


def steady_rate(done_at: Sequence[float], since: float, until: float) -> float:
    """Answers a second between two times, both in seconds from the start of the load."""
    return sum(since < at <= until for at in done_at) / (until - since)


def since(outcome: Outcome, after: float) -> list[float]:
    """Latencies of the right answers that came later than so many seconds from the start."""
    return [took for at, took in zip(outcome.done_at, outcome.latencies_ms, strict=True) if at > after]


def normal_from(outcome: Outcome, usual_ms: float) -> float:
    """Return the second of the load from which on all are normal: nothing was refused or lost, and nine in ten were
    answered within ``usual_ms``. Infinite when the last is not."""
    seconds = math.ceil(outcome.seconds)
    if outcome.wrong or outcome.lost or outcome.unsent:
        return math.inf
    for second in reversed(range(seconds)):
        took = [
            took
            for at, took in zip(outcome.done_at, outcome.latencies_ms, strict=True)
            if second <= at < second + 1
        ]
        refused = any(second <= at < second + 1 for at in outcome.rejected_at)
        # Not `>`: of nothing answered there is no percentile, and that is not normal either.
        if refused or not percentile(took, NORMAL_SHARE) <= usual_ms:
            return math.inf if second == seconds - 1 else second + 1.0
    return 0.0
