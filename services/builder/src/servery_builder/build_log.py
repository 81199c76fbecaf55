"""The log of one build: lines for people, stored as they happen.

Lines are collected for a moment and stored in one go, so that a package installer that prints hundreds of lines costs
a few writes, and whoever follows the log still sees a line within a third of a second. While the database
is away, lines wait here.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from servery_builder.store import BuildStore, Claim
from servery_common.postgres import OUTAGE
from servery_common.redaction import Redactor

log = structlog.get_logger(__name__)

_COLLECT_SECONDS = 0.2
_RETRY_SECONDS = 1.0
_CHUNK_BYTES = 16 * 1024
_LONGEST_LINE = 8 * 1024
# A database that stays away for long must not fill the builder's memory.
_MOST_WAITING = 20_000


class BuildLog:
    """Takes lines from the running build and stores them."""

    def __init__(
        self,
        store: BuildStore,
        claim: Claim,
        redact: Redactor,
        limit_bytes: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._claim = claim
        self._redact = redact
        self._limit_bytes = limit_bytes
        self._now = now
        self._waiting: list[str] = []
        self._dropped = 0
        self._some = asyncio.Event()
        self._storing = asyncio.Lock()

    def say(self, text: str) -> None:
        """Add one or more lines; secrets are masked."""
        time = self._now().strftime("%Y-%m-%d %H:%M:%S")
        for line in self._redact(text).splitlines():
            # Postgres takes no NUL in text, and a program may print one.
            clean = line.replace("\0", "").rstrip()[:_LONGEST_LINE]
            if len(self._waiting) >= _MOST_WAITING:
                self._dropped += 1
            else:
                self._waiting.append(f"[{time}] {clean}")
        self._some.set()

    async def run(self) -> None:
        """Store lines as they come, for ever."""
        while True:
            await self._some.wait()
            await asyncio.sleep(_COLLECT_SECONDS)
            try:
                await self.flush()
            except OUTAGE as error:
                log.warning("build_log_waits", build_id=self._claim.build.build_id, error=repr(error))
                await asyncio.sleep(_RETRY_SECONDS)

    async def flush(self) -> None:
        """Store everything said so far."""
        async with self._storing:
            # Cleared before the lines are taken: one said meanwhile must not wait for the next.
            self._some.clear()
            while self._waiting:
                lines = _first_chunk(self._waiting)
                try:
                    await self._store.append_log(self._claim, lines, self._limit_bytes)
                except OUTAGE:
                    self._some.set()
                    raise
                # Lines for a build that is somebody else's by now are dropped: its log goes on there.
                del self._waiting[: len(lines)]
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                self.say(f"{dropped} lines were lost while the database was away.")


def _first_chunk(lines: list[str]) -> list[str]:
    size = 0
    for count, line in enumerate(lines):
        size += len(line)
        if size > _CHUNK_BYTES:
            return lines[: max(count, 1)]
    return list(lines)
