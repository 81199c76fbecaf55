"""Logs scoring requests that were not answered 2xx, so that what a client saw is found by its request id.

Bounded: under overload thousands of rejections a second are all alike, and writing each down would cost the
requests that could be served.
"""

import time
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

LINES_PER_SECOND = 20


class FailureLog:
    """Writes at most ``LINES_PER_SECOND`` lines; says how many it left out. ``clock`` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._second = 0
        self._lines = 0
        self._left_out = 0

    def note(self, status: int, reason: str, *, endpoint: str, request_id: str, trace_id: str) -> None:
        """Log one answer: a failure of the platform (5xx) as a warning, what the caller or the model did as info."""
        second = int(self._clock())
        if second != self._second:
            if self._left_out:
                log.warning("requests_failed_unlogged", count=self._left_out)
            self._second, self._lines, self._left_out = second, 0, 0
        if self._lines >= LINES_PER_SECOND:
            self._left_out += 1
            return
        self._lines += 1
        write = log.warning if status >= 500 else log.info
        fields = {"trace_id": trace_id} if trace_id else {}
        write(
            "request_failed", endpoint=endpoint, request_id=request_id, status=status, reason=reason, **fields
        )
