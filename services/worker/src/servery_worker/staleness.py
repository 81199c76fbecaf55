"""How long a request was under way before it was read here, by clocks that need not agree.

A worker that was frozen finds requests which their gateway has given to another replica meanwhile: they must
not run here as well. Each says when it was sent, by the gateway's clock. The smallest difference to the own clock
that was seen lately is what the clocks differ by plus the shortest way; what exceeds it is time lost.
No I/O; the caller brings the time.
"""

from collections import OrderedDict
from dataclasses import dataclass

from servery_common.contracts.frames import ACCEPT_WITHIN_MS

REMEMBERED_GATEWAYS = 1000
LATELY_MS = 60_000.0
"""The smallest difference counts for one to two of these: clocks drift."""
CLOCK_WAS_SET_MS = 1_000.0
"""Finding nothing but stale requests for this long means that a clock was set, not that the worker was frozen: what
piled up while it was frozen is read within milliseconds."""


@dataclass(slots=True)
class _Gateway:
    smallest: float
    smallest_before: float
    began_at: float
    stale_since: float | None = None


class Staleness:
    """Knows the gateways this worker hears from."""

    def __init__(self) -> None:
        self._gateways: OrderedDict[str, _Gateway] = OrderedDict()

    def is_stale(self, gateway: str, sent_at_ms: float, now_ms: float) -> bool:
        """Whether the request was under way for longer than its gateway waits (``ACCEPT_WITHIN_MS``).

        A gateway that was never heard of is judged as if the clocks agreed: what it sent while this worker was frozen
        must not be judged by the oldest of it. Are the clocks of two machines that far apart, its requests are
        refused for ``CLOCK_WAS_SET_MS``, and taken from then on.
        """
        difference = now_ms - sent_at_ms
        known = self._gateways.pop(gateway, None)
        if known is None:
            agreed = min(difference, 0.0)
            known = _Gateway(agreed, agreed, now_ms)
            age = difference - agreed
        else:
            if now_ms - known.began_at >= LATELY_MS:
                known = _Gateway(difference, known.smallest, now_ms, known.stale_since)
            known.smallest = min(known.smallest, difference)
            age = difference - min(known.smallest, known.smallest_before)
        self._gateways[gateway] = known
        if len(self._gateways) > REMEMBERED_GATEWAYS:
            self._gateways.popitem(last=False)
        return self._judge(known, age, difference, now_ms)

    def _judge(self, known: _Gateway, age: float, difference: float, now_ms: float) -> bool:
        if age <= ACCEPT_WITHIN_MS:
            known.stale_since = None
            return False
        if known.stale_since is None:
            known.stale_since = now_ms
        if now_ms - known.stale_since < CLOCK_WAS_SET_MS:
            return True
        known.smallest = known.smallest_before = difference
        known.stale_since = None
        return False
