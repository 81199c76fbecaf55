"""Run all components side by side until told to stop, and leave nothing behind.

The order of the start does not matter, every service retries its connections. The order of the
stop does: the gateway first, so that requests in flight still find their workers, the stores last.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import structlog

from servery_local import processes
from servery_local.child import Child, ChildSpec
from servery_local.data_directory import DataDirectory
from servery_local.logs import COMBINED, LineLog, RotatingLog
from servery_local.reporter import Reporter
from servery_local.state import Phase, StackState, save_state

log = structlog.get_logger()

REAP_INTERVAL = 5.0
SWEEP_GRACE = 2.0
SWEEP_SIGNALS = (signal.SIGTERM, signal.SIGKILL)
KILL_MARGIN = 5.0
"""Seconds for the kernel to end what was killed, and to write the last state, on a busy machine."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Supervisor:
    """Runs the components of one data directory, which the caller has locked.

    `state` is the starting point of what is written to the data directory. `hint` is printed when
    everything is ready, with the number of endpoints that are not yet, from `count_starting`.
    Construct it inside the event loop that runs it.
    """

    def __init__(
        self,
        directory: DataDirectory,
        specs: Sequence[ChildSpec],
        *,
        state: StackState,
        reporter: Reporter,
        hint: str,
        count_starting: Callable[[], Awaitable[int]],
    ) -> None:
        self._directory = directory
        self._state = replace(state, stop_within=stop_bound(specs))
        self._reporter = reporter
        self._hint = hint
        self._count_starting = count_starting
        self._stop_requested = asyncio.Event()
        self._logs = [RotatingLog(directory.logs / f"{COMBINED}.log")]
        self._children = [self._child(spec, Path(state.runtime)) for spec in specs]

    async def run(self) -> None:
        """Run until a stop signal; raises `ComponentFailed` when the stack cannot come up.

        Either way no component runs any more afterwards.
        """
        processes.adopt_orphans()
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self.request_stop)
        self._save(Phase.STARTING)
        reaper = asyncio.create_task(self._reap(), name="reap orphans")
        running = [asyncio.create_task(child.run(), name=child.spec.name) for child in self._children]
        stopping = asyncio.create_task(self._stop_requested.wait(), name="stop requested")
        try:
            await self._come_up([*running, stopping])
            await asyncio.wait([*running, stopping], return_when="FIRST_COMPLETED")
        finally:
            await self._stop_children()
            reaper.cancel()
            stopping.cancel()
            results = await asyncio.gather(*running, return_exceptions=True)
            for kept in self._logs:
                kept.close()
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def request_stop(self) -> None:
        """Stop gracefully; asked again, stop at once."""
        if self._stop_requested.is_set():
            for child in self._children:
                child.kill()
        self._stop_requested.set()

    def _child(self, spec: ChildSpec, runtime: Path) -> Child:
        own = RotatingLog(self._directory.logs / f"{spec.name}.log")
        self._logs.append(own)
        return Child(
            spec=spec,
            runtime=runtime,
            output=LineLog(spec.name, own, self._logs[0]),
            reporter=self._reporter,
            changed=lambda: self._save(self._state.phase),
        )

    async def _come_up(self, endings: Sequence[asyncio.Task[object]]) -> None:
        """Wait until all components are ready, or something ends before that."""
        started = time.monotonic()
        ready = asyncio.create_task(self._all_ready(), name="all ready")
        try:
            with self._reporter.starting([child.spec.name for child in self._children]):
                await asyncio.wait([ready, *endings], return_when="FIRST_COMPLETED")
        finally:
            ready.cancel()
        if ready.done() and not any(ending.done() for ending in endings):
            seconds = time.monotonic() - started
            log.info("stack_ready", seconds=round(seconds, 2))
            starting = await self._count_starting()
            self._reporter.stack_ready(
                self._state.gateway_url, self._state.mlflow_url, seconds, starting, self._hint
            )
            # Last: who waits for this phase reads what was printed and goes.
            self._save(Phase.RUNNING)

    async def _all_ready(self) -> None:
        for child in self._children:
            await child.ready.wait()

    async def _stop_children(self) -> None:
        started = time.monotonic()
        self._reporter.stopping()
        self._save(Phase.STOPPING)
        log.info("stack_stopping")
        for stage in stop_stages([child.spec for child in self._children]):
            await asyncio.gather(*(child.stop() for child in self._children if child.spec in stage))
        await asyncio.to_thread(_sweep)
        self._state = self._state.as_stopped()
        save_state(self._directory, self._state)
        log.info("stack_stopped", seconds=round(time.monotonic() - started, 2))
        self._reporter.stopped(time.monotonic() - started)

    def _save(self, phase: Phase) -> None:
        components = tuple(child.status for child in self._children)
        self._state = replace(self._state, phase=phase, components=components)
        save_state(self._directory, self._state)

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(REAP_INTERVAL)
            processes.reap_orphans(child.pid for child in self._children if child.pid is not None)


def stop_stages(specs: Sequence[ChildSpec]) -> list[list[ChildSpec]]:
    """Return the components in the order in which they are stopped; those of one stage stop together."""
    by_stage = sorted(specs, key=lambda spec: spec.stop_stage)
    return [list(stage) for _, stage in itertools.groupby(by_stage, key=lambda spec: spec.stop_stage)]


def stop_bound(specs: Sequence[ChildSpec]) -> float:
    """Return the seconds that stopping takes at most, when nothing obeys: all stages, then the sweep."""
    graces = (max(spec.stop_grace for spec in stage) for stage in stop_stages(specs))
    return sum(graces) + len(SWEEP_SIGNALS) * SWEEP_GRACE + KILL_MARGIN


def _sweep() -> None:
    """End what the components started and left behind; all of it has come to this process."""
    left = processes.descendants(os.getpid())
    for number in SWEEP_SIGNALS:
        for identity in left:
            with suppress(PermissionError):
                processes.send(identity, number)
        left = processes.wait_gone(left, SWEEP_GRACE)
        processes.reap_orphans(())
