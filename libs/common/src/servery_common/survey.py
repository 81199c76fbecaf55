"""What is read now and then for scrapes, because it takes a question to somebody else.

A scrape must not wait for a database that hangs: it shows what was read last, and for how long that has been so.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import structlog
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from servery_common.metric_families import gauge

log = structlog.get_logger(__name__)

T = TypeVar("T")

INTERVAL = 10.0
STALE_SECONDS = 60.0
"""What is older is not shown: a gap says more than a number that is no longer true."""


class Survey(Generic[T]):
    """Reads with ``read``, and makes with ``present`` what is shown. ``failures`` is what ``read`` may raise."""

    def __init__(
        self,
        name: str,
        read: Callable[[], Awaitable[T]],
        present: Callable[[T], Iterable[Metric]],
        failures: tuple[type[Exception], ...],
        *,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.last: T | None = None
        """What was read last; not None once anything was."""
        self._read = read
        self._present = present
        self._failures = failures
        self._interval = interval
        self._clock = clock
        self._read_at = float("-inf")
        self._failed = False

    @property
    def is_up(self) -> bool:
        """Whether the last look worked."""
        return self.last is not None and not self._failed

    async def run(self) -> None:
        """Read for ever."""
        while True:
            await self.look()
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Read once."""
        try:
            self.last = await self._read()
        except self._failures as error:
            if not self._failed:
                log.warning("survey_failed", survey=self.name, error=repr(error))
            self._failed = True
        else:
            self._failed = False
            self._read_at = self._clock()

    def families(self) -> Iterable[Metric]:
        """Return what is shown now."""
        if self.last is None or self._clock() - self._read_at > STALE_SECONDS:
            return ()
        return self._present(self.last)


class Surveys(Collector):
    """Shows several."""

    def __init__(self, surveys: Sequence[Survey[Any]]) -> None:
        self._surveys = surveys

    def collect(self) -> Iterable[Metric]:
        """Implement Collector."""
        yield gauge(
            "servery_survey_up",
            "Whether the last look at what this service has to ask others for worked.",
            ("survey",),
            (((survey.name,), survey.is_up) for survey in self._surveys),
        )
        for survey in self._surveys:
            yield from survey.families()
