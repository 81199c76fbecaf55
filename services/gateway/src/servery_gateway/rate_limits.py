"""Rate limits of endpoints: at most so many calls a minute, for the whole endpoint or for each caller.

Calls are counted in this process. With several gateways behind one address, each lets the limit through.
"""

from collections.abc import Callable
from time import monotonic

from servery_common.contracts.access import Identity
from servery_common.contracts.routes import EndpointRoute, RateLimit
from servery_common.errors import RequestLimitExceeded
from servery_gateway.sliding_window import SlidingWindow


class RateLimiter:
    """Counts the calls that were let in. Refused ones count for nothing."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._windows: dict[tuple[str, str], SlidingWindow] = {}

    def admit(self, route: EndpointRoute, caller: Identity) -> None:
        """Let a call in and count it. Raises RequestLimitExceeded, with the seconds until there is room."""
        if not route.rate_limits:
            return
        now = self._now()
        windows: list[SlidingWindow] = []
        for limit in route.rate_limits:
            window = self._windows.setdefault(_key(route, limit, caller), SlidingWindow())
            wait = window.seconds_until_below(limit.calls, now)
            if wait > 0:
                raise RequestLimitExceeded(_refusal(route, limit, caller), retry_after=wait)
            windows.append(window)
        for window in windows:
            window.add(now)

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
