"""Rate limits of endpoints: at most so many calls a minute, for the whole endpoint or for each caller.

Gateways tell each other of the calls they let in (``limit_gossip``), so a limit holds for all of them together, but for
what comes to two of them at the same moment.
"""

from collections.abc import Callable
from time import monotonic

from servery_common.contracts.access import Identity
from servery_common.contracts.quotas import CallCount, GatewayCalls
from servery_common.contracts.routes import EndpointRoute, RateLimit
from servery_common.errors import RequestLimitExceeded
from servery_gateway.sliding_window import SlidingWindow


class RateLimiter:
    """Counts the calls that were let in. Refused ones count for nothing.

    ``called`` is called back when there are calls to tell the other gateways of.
    """

    def __init__(
        self, now: Callable[[], float] = monotonic, called: Callable[[], None] = lambda: None
    ) -> None:
        self._now = now
        self._called = called
        self._untold: dict[tuple[str, str], int] = {}
        self._windows: dict[tuple[str, str], SlidingWindow] = {}

    def admit(self, route: EndpointRoute, caller: Identity) -> None:
        """Let a call in and count it. Raises RequestLimitExceeded, with the seconds until there is room."""
        if not route.rate_limits:
            return
        now = self._now()
        windows: list[tuple[tuple[str, str], SlidingWindow]] = []
        for limit in route.rate_limits:
            key = _key(route, limit, caller)
            window = self._windows.setdefault(key, SlidingWindow())
            wait = window.seconds_until_below(limit.calls, now)
            if wait > 0:
                raise RequestLimitExceeded(_refusal(route, limit, caller), retry_after=wait)
            windows.append((key, window))
        for key, window in windows:
            window.add(now)
            self._untold[key] = self._untold.get(key, 0) + 1
        self._called()

    def hear(self, told: GatewayCalls) -> None:
        """Count the calls another gateway let in."""
        now = self._now()
        for one in told.counts:
            key = one.endpoint_id, one.principal_id
            self._windows.setdefault(key, SlidingWindow()).add(now, one.calls)

    def take_untold(self) -> list[CallCount]:
        """Return the calls let in since this was asked before."""
        untold, self._untold = self._untold, {}
        return [
            CallCount(endpoint_id=endpoint_id, principal_id=principal_id, calls=calls)
            for (endpoint_id, principal_id), calls in untold.items()
        ]

    def forget_idle(self) -> None:
        """Forget who has not called for a minute; to be called now and then."""
        now = self._now()
        self._windows = {key: window for key, window in self._windows.items() if window.count(now)}

    @property
    def counted(self) -> int:
        """For how many endpoints and callers calls are counted."""
        return len(self._windows)


def _key(route: EndpointRoute, limit: RateLimit, caller: Identity) -> tuple[str, str]:
    return route.endpoint_id, caller.principal_id if limit.key == "user" else ""


def _refusal(route: EndpointRoute, limit: RateLimit, caller: Identity) -> str:
    whose = f"each caller (you are '{caller.user_name}')" if limit.key == "user" else "all callers together"
    return (
        f"Endpoint '{route.name}' takes {limit.calls} calls per minute from {whose}. Send fewer, or ask who "
        "manages the endpoint to raise its rate limit."
    )
