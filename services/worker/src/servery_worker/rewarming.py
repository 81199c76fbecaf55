"""Keep warm parents within their budget, remember them, and have them again after a restart of the worker.

They are started one at a time, the ones used last first, and only while nothing that was ordered is being started: an
import that is in the way of an order for something else is ended and begun again when it is quiet.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from servery_common.service import wait_any
from servery_worker.remembered import Remembered, WarmList, within
from servery_worker.starts import Starts
from servery_worker.warm_parent import WarmParentFailed
from servery_worker.warm_parents import WarmParents

log = structlog.get_logger(__name__)

QUIET_SECONDS = 3.0
"""So long nothing was ordered. After a restart the controller orders what is missing within that time."""
KEEP_SECONDS = 1.0


class Rewarming:
    """The two background tasks of the warm parents."""

    def __init__(
        self,
        parents: WarmParents,
        starts: Starts,
        file: WarmList,
        *,
        quiet_seconds: float = QUIET_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parents = parents
        self._starts = starts
        self._file = file
        self._quiet_seconds = quiet_seconds
        self._began = clock()
        self._missing = file.read()

    async def keep(self) -> None:
        """Once a second end what is beyond the budget and write down what is left. For ever."""
        while True:
            self._parents.keep_within_budget()
            there = self._parents.remembered()
            known = {one.environment_key for one in there}
            # What is still to come is not forgotten, should the worker end before it came.
            missing = [one for one in self._missing if one.environment_key not in known]
            await asyncio.to_thread(self._file.write, there + missing)
            await asyncio.sleep(KEEP_SECONDS)

    async def restore(self) -> None:
        """Start what was warm before the worker ended and is not there yet, as far as the budget goes."""
        await self._quiet()
        absent = [one for one in self._missing if not self._parents.has(one.environment_key)]
        self._missing = within(self._parents.memory_bytes, absent)
        for place, one in enumerate(list(self._missing)):
            while not await self._warm(one, used_at=self._began - place):
                await self._quiet()
            self._missing.remove(one)

    async def _warm(self, one: Remembered, *, used_at: float) -> bool:
        """Start one; False when that was in the way of something else."""
        key = one.environment_key
        if self._parents.has(key) or not Path(one.python).exists():
            return True
        warming = asyncio.create_task(
            self._parents.prepare(one.artifacts, one.modules, used_at=used_at), name=f"rewarm-{key}"
        )
        try:
            while not warming.done():
                await wait_any(warming, self._starts.some)
                if warming.done():
                    break
                if self._parents.abandon(key):
                    log.info("warm_parent_postponed", environment_key=key)
                    await asyncio.wait({warming})
                    return False
                # What was ordered needs this one, too.
                await asyncio.wait({warming}, timeout=1.0)
        finally:
            warming.cancel()
            await asyncio.wait({warming})
        if not warming.cancelled() and isinstance(error := warming.exception(), WarmParentFailed):
            log.warning("warm_parent_not_restored", environment_key=key, error=str(error))
        return True

    async def _quiet(self) -> None:
        """Return when nothing was being started for a while."""
        while True:
            await self._starts.none.wait()
            before = self._starts.began
            await wait_any(self._starts.some, self._quiet_seconds)
            if self._starts.began == before:
                return
