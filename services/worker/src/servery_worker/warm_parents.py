"""The warm parents of this worker, one per model environment: started once, shared, evicted when unused."""

import asyncio
import itertools
import os
from pathlib import Path

import structlog

from servery_common.contracts.builds import Artifacts
from servery_worker import environment
from servery_worker.warm_parent import WarmParent

log = structlog.get_logger(__name__)


class WarmParents:
    """Hands out warm parents by environment key."""

    def __init__(self, *, overlay: Path, home: Path, keep: int, warm_up_timeout: float) -> None:
        self._overlay = overlay
        self._home = home
        self._keep = keep
        self._warm_up_timeout = warm_up_timeout
        self._parents: dict[str, asyncio.Task[WarmParent]] = {}
        self._used: dict[str, int] = {}
        self._clock = itertools.count()

    async def get(self, artifacts: Artifacts, modules: tuple[str, ...]) -> WarmParent:
        """The live warm parent of this environment; started, once for all who ask, if there is none.

        Raises WarmParentFailed.
        """
        key = artifacts.environment_key
        starting = self._parents.get(key)
        if starting is None or _useless(starting):
            starting = asyncio.create_task(self._start(artifacts, modules), name=f"warm-{key}")
            self._parents[key] = starting
        self._used[key] = next(self._clock)
        # Shielded: one caller that gives up must not take the parent away from the others.
        parent = await asyncio.shield(starting)
        self._evict()
        return parent

    def warm_keys(self) -> tuple[str, ...]:
        """Environment keys with a live warm parent that can fork."""
        return tuple(sorted(key for key, parent in self._live() if not parent.unforkable))

    def environment_of(self, artifacts: Artifacts) -> dict[str, str]:
        """The variables a process of this model environment starts with."""
        return environment.for_runner(
            os.environ, home=self._home, environment_path=Path(artifacts.environment_path)
        )

    async def close(self) -> None:
        """End all of them, and with them their runners."""
        tasks = list(self._parents.values())
        self._parents.clear()
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        parents = [parent for parent in ended if isinstance(parent, WarmParent)]
        for parent in parents:
            parent.close()
        await asyncio.gather(*(parent.closed() for parent in parents))

    async def _start(self, artifacts: Artifacts, modules: tuple[str, ...]) -> WarmParent:
        parent = WarmParent(artifacts.environment_key)
        try:
            await parent.start(
                artifacts.python,
                modules,
                overlay=self._overlay,
                environment=self.environment_of(artifacts),
                timeout=self._warm_up_timeout,
            )
        except BaseException:
            parent.close()
            raise
        return parent

    def _evict(self) -> None:
        unused = [key for key, parent in self._live() if not parent.runners]
        excess = len(self._parents) - self._keep
        for key in sorted(unused, key=lambda key: self._used[key])[: max(0, excess)]:
            # The newest is the one just asked for: its runner is about to be forked.
            if self._used[key] == max(self._used.values()):
                continue
            self._parents.pop(key).result().close()
            log.info("warm_parent_evicted", environment_key=key)

    def _live(self) -> list[tuple[str, WarmParent]]:
        return [
            (key, task.result()) for key, task in self._parents.items() if task.done() and not _useless(task)
        ]


def _useless(task: asyncio.Task[WarmParent]) -> bool:
    if not task.done():
        return False
    return task.cancelled() or task.exception() is not None or task.result().died.is_set()
