"""What a prediction took: time, the processor's time, and time in which there was no processor for it."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

SCHEDSTAT = "/proc/thread-self/schedstat"
"""Nanoseconds on a processor, nanoseconds ready and waiting for one, and turns (Linux, proc(5))."""


class Effort(NamedTuple):
    """Seconds."""

    elapsed: float
    cpu: float
    """Of all threads of the process: some models compute in threads of their own."""
    queued: float
    """The thread could have gone on and waited for a processor, as others had them. 0 where the system does not say."""

    @property
    def busy(self) -> float:
        """The share of a processor it used while it could have one, 0 to 1."""
        at_hand = self.elapsed - self.queued
        return min(1.0, self.cpu / at_hand) if at_hand > 0 else 1.0


class Meter:
    """Measures what this thread does. Use it in the thread that made it."""

    def __init__(self) -> None:
        try:
            self._schedstat = os.open(SCHEDSTAT, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._schedstat = -1
        self.start()

    def start(self) -> None:
        """Measure from now on."""
        self._queued = self._queued_ns()
        self._cpu = time.process_time()
        self._began = time.monotonic()

    def read(self) -> Effort:
        """Return what happened since ``start``."""
        elapsed, cpu = time.monotonic() - self._began, time.process_time() - self._cpu
        return Effort(elapsed, cpu, (self._queued_ns() - self._queued) / 1e9)

    def _queued_ns(self) -> int:
        if self._schedstat < 0:
            return 0
        try:
            return int(os.pread(self._schedstat, 128, 0).split()[1])
        except (OSError, IndexError, ValueError):
            return 0
