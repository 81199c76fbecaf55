"""Whether a prediction keeps this process busy or waits for something else."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import NamedTuple, Optional

TASKS = "/proc/self/task"
"""In each thread's ``schedstat``: nanoseconds on a processor, nanoseconds ready and waiting for one, turns (Linux)."""
COST_SHARE = 0.01
"""Looking at all threads may take this much of a thread's time."""


class Effort(NamedTuple):
    """Seconds between two looks."""

    elapsed: float
    cpu: float
    """Of all threads of the process: some models compute in threads of their own."""
    queued: float
    """This thread could have gone on, but others had the processors."""
    others_queued: float
    """So long did the other threads of the process, for one of which this one may have waited. Not those that ended."""

    @property
    def busy(self) -> float:
        """The most of a processor that can have been in use for it, 0 to 1, while one was at hand."""
        at_hand = self.elapsed - self.queued
        return min(1.0, (self.cpu + self.others_queued) / at_hand) if at_hand > 0 else 1.0


class Meter:
    """Measures some of the predictions of the thread that made it: to look at all threads takes a while."""

    def __init__(self) -> None:
        self._thread = str(threading.get_native_id())
        self._due = 0.0
        self._before: Optional[dict[str, int]] = None
        self._cpu = self._began = 0.0

    def start(self) -> None:
        """Measure from now on, if it is time again."""
        began = time.monotonic()
        self._before = _queued() if began >= self._due else None
        if self._before is not None:
            self._cpu = time.process_time()
            self._began = time.monotonic()
            self._due = self._began + 2 * (self._began - began) / COST_SHARE  # ``read`` looks, too.

    def read(self) -> Optional[Effort]:
        """Return what happened since ``start``; None when that is not measured."""
        before = self._before
        if before is None:
            return None
        elapsed, cpu = time.monotonic() - self._began, time.process_time() - self._cpu
        waited = {thread: queued - before.get(thread, 0) for thread, queued in _queued().items()}
        own = waited.pop(self._thread, 0)
        return Effort(elapsed, cpu, own / 1e9, sum(waited.values()) / 1e9)


def _queued() -> dict[str, int]:
    """Nanoseconds each thread was ready and had no processor; empty where the system does not say."""
    found: dict[str, int] = {}
    try:
        threads = list(os.scandir(TASKS))
    except OSError:
        return found
    for thread in threads:
        # It may have ended meanwhile, or the system has none.
        with contextlib.suppress(OSError, IndexError, ValueError):
            found[thread.name] = int(_contents(f"{thread.path}/schedstat").split()[1])
    return found


def _contents(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, 128)
    finally:
        os.close(file)
