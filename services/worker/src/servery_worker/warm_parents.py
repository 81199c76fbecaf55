"""The warm parents of this worker, one per model environment: started once, shared, kept within a memory budget."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import structlog

from servery_common.contracts.builds import Artifacts
from servery_common.contracts.replicas import WarmEnvironment
from servery_worker import environment, usage, warm_memory
from servery_worker.remembered import Remembered
from servery_worker.warm_memory import Kept
from servery_worker.warm_parent import WarmParent

log = structlog.get_logger(__name__)

REMEMBERED_ENDS = 1000
NEVER_STARTED = "it was not used here since this worker started"
EVICTED = "its warm parent was ended to keep within SERVERY_WORKER_WARM_MEMORY_BYTES"
DIED = "its warm parent ended"


class WarmParents:
    """Hands out warm parents by environment key."""

    def __init__(
        self,
        *,
        overlay: Path,
        home: Path,
        memory_bytes: int,
        warm_up_timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._overlay = overlay
        self._home = home
        self.memory_bytes = memory_bytes
        """What those without runners may hold together."""
        self._warm_up_timeout = warm_up_timeout
        self._clock = clock
        self._parents: dict[str, asyncio.Task[WarmParent]] = {}
        self._holders: dict[str, int] = {}
        self._made_of: dict[str, tuple[Artifacts, tuple[str, ...]]] = {}
        self._used_at: dict[str, float] = {}
        self._memory: dict[str, int] = {}
        self._gone: dict[str, str] = {}
        """Why there is no warm parent of an environment that had one."""

    @contextlib.asynccontextmanager
    async def hold(
        self, artifacts: Artifacts, modules: tuple[str, ...], tell: Callable[[str], None] = lambda _: None
    ) -> AsyncGenerator[WarmParent]:
        """The live warm parent of this environment, which is not ended for its memory's sake meanwhile.

        Started, once for all who ask, if there is none; ``tell`` is told so, with the reason. Raises WarmParentFailed.
        """
        key = artifacts.environment_key
        self._holders[key] = self._holders.get(key, 0) + 1
        self._note_use()
        try:
            # Shielded: one caller that gives up must not take the parent away from the others.
            yield await asyncio.shield(self._starting(artifacts, modules, tell))
        finally:
            self._note_use()
            self._holders[key] -= 1
            if not self._holders[key]:
                del self._holders[key]
            self.keep_within_budget()

    def has(self, environment_key: str) -> bool:
        """Whether there is one, or will be in a moment."""
        task = self._parents.get(environment_key)
        return task is not None and not _useless(task)

    async def prepare(self, artifacts: Artifacts, modules: tuple[str, ...], *, used_at: float) -> None:
        """Start one for later that nobody asks for now; it was last used then. Raises WarmParentFailed."""
        async with self.hold(artifacts, modules):
            pass
        key = artifacts.environment_key
        parent = dict(self._live()).get(key)
        if parent is not None and not self._in_use(key, parent):
            self._used_at[key] = used_at

    def abandon(self, environment_key: str) -> bool:
        """End one that is still being started and for one caller of ``prepare`` only; True if it was."""
        task = self._parents.get(environment_key)
        if task is None or task.done() or self._holders.get(environment_key, 0) > 1:
            return False
        del self._parents[environment_key]
        task.cancel()
        return True

    def remembered(self) -> list[Remembered]:
        """What to have again after a restart: those that are there, the ones used last first."""
        memory = {one.environment_key: one.memory_bytes for one in self.observe()}
        return [Remembered.of(*self._made_of[key], memory_bytes) for key, memory_bytes in memory.items()]

    def warm_keys(self) -> tuple[str, ...]:
        """Environment keys with a live warm parent that can fork."""
        return tuple(sorted(key for key, parent in self._live() if not parent.unforkable))

    def observe(self) -> tuple[WarmEnvironment, ...]:
        """All of them, as told in heartbeats: the ones used last first."""
        self._note_use()
        now = self._clock()
        seen = [
            WarmEnvironment(
                environment_key=key,
                memory_bytes=self._memory.get(key, 0),
                runners=parent.runners,
                unused_seconds=round(now - self._used_at[key], 1),
            )
            for key, parent in self._live()
        ]
        return tuple(sorted(seen, key=lambda one: one.unused_seconds))

    def keep_within_budget(self) -> None:
        """End those that nobody needs and the memory set aside does not hold."""
        self._note_use()
        kept = [
            Kept(key, self._memory.get(key, 0), self._in_use(key, parent), self._used_at[key])
            for key, parent in self._live()
        ]
        for key in warm_memory.to_end(kept, self.memory_bytes):
            self._parents.pop(key).result().close()
            self._remember_end(key, EVICTED)
            log.info(
                "warm_parent_evicted",
                environment_key=key,
                memory_bytes=self._memory.get(key, 0),
                budget_bytes=self.memory_bytes,
            )

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

    def _starting(
        self, artifacts: Artifacts, modules: tuple[str, ...], tell: Callable[[str], None]
    ) -> asyncio.Task[WarmParent]:
        key = artifacts.environment_key
        known = self._parents.get(key)
        if known is not None and not _useless(known):
            return known
        if known is not None:
            self._remember_end(key, DIED)
        because = self._gone.get(key, NEVER_STARTED)
        tell(f"Servery: importing the packages of this model's environment: {because}.")
        self._made_of[key] = (artifacts, modules)
        self._parents[key] = asyncio.create_task(self._start(artifacts, modules, because), name=f"warm-{key}")
        return self._parents[key]

    async def _start(self, artifacts: Artifacts, modules: tuple[str, ...], because: str) -> WarmParent:
        key = artifacts.environment_key
        parent = WarmParent(key)
        began = self._clock()
        try:
            await parent.start(
                artifacts.python,
                modules,
                overlay=self._overlay,
                environment=self.environment_of(artifacts),
                timeout=self._warm_up_timeout,
            )
            # It only forks from now on: what it holds does not change any more.
            self._memory[key] = await asyncio.to_thread(usage.held, parent.pid)
        except BaseException:
            parent.close()
            raise
        self._used_at[key] = self._clock()
        log.info(
            "warm_parent_started",
            environment_key=key,
            pid=parent.pid,
            seconds=round(self._clock() - began, 3),
            memory_bytes=self._memory[key],
            because=because,
            unforkable=parent.unforkable,
        )
        return parent

    def _in_use(self, key: str, parent: WarmParent) -> bool:
        return parent.runners > 0 or key in self._holders

    def _note_use(self) -> None:
        now = self._clock()
        for key, parent in self._live():
            if self._in_use(key, parent):
                self._used_at[key] = now

    def _remember_end(self, key: str, because: str) -> None:
        self._gone.pop(key, None)
        self._gone[key] = because
        while len(self._gone) > REMEMBERED_ENDS:
            del self._gone[next(iter(self._gone))]

    def _live(self) -> list[tuple[str, WarmParent]]:
        return [
            (key, task.result()) for key, task in self._parents.items() if task.done() and not _useless(task)
        ]


def _useless(task: asyncio.Task[WarmParent]) -> bool:
    if not task.done():
        return False
    return task.cancelled() or task.exception() is not None or task.result().died.is_set()
