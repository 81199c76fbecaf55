"""How much of the machine each replica's model process uses, measured once a second.

Reading ``/proc`` can take a while on a busy machine, so it happens in a thread; heartbeats tell the last values. Only
the process that holds the model is measured, not what it may have started.

Of a process that holds more than it may, ``on_excess`` is told. Its own memory the kernel limits, without delay
(``servery_runner.limits``); this finds what the kernel does not count, memory shared between processes.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

INTERVAL = 1.0
CGROUP = Path("/sys/fs/cgroup")
"""Where a container sees its own control group (version 2)."""


class Limits(NamedTuple):
    """What a process may use."""

    processors: float
    memory_bytes: int


class Usage(NamedTuple):
    """What one process uses."""

    cpu_percent: float | None
    """Of all processors it may use, 0 to 100; None until it was seen twice."""
    memory_bytes: int
    """Resident without mapped files, whose pages the kernel takes back when it needs them."""
    memory_limit_bytes: int


def read_limits(cgroup: Path = CGROUP) -> Limits:
    """Return the control group's limits where it has some, else what the machine has."""
    processors = float(os.cpu_count() or 1)
    if hasattr(os, "sched_getaffinity"):
        processors = float(len(os.sched_getaffinity(0)))
    # "max 100000" or "150000 100000": microseconds of processor time per period.
    match _words(cgroup / "cpu.max"):
        case [quota, period] if quota.isdigit() and period.isdigit():
            processors = min(processors, max(int(quota), 1) / max(int(period), 1))
        case _:
            pass
    memory = psutil.virtual_memory().total
    match _words(cgroup / "memory.max"):
        case [limit] if limit.isdigit():
            memory = min(memory, int(limit))
        case _:
            pass
    return Limits(processors, memory)


class UsageMeter:
    """Measures the processes of replicas; ``pids`` returns them by replica id.

    ``on_excess`` is called with the replica id and the pid of each that holds more memory than it may.
    """

    def __init__(
        self,
        pids: Callable[[], Mapping[str, int]],
        limits: Limits,
        on_excess: Callable[[str, int], None],
    ) -> None:
        self._pids = pids
        self._limits = limits
        self._on_excess = on_excess
        self._processes: dict[str, psutil.Process] = {}
        self._usages: Mapping[str, Usage] = {}

    def of(self, replica_id: str) -> Usage | None:
        """Return what was measured last; None when it has no process or was not measured yet."""
        return self._usages.get(replica_id)

    async def run(self) -> None:
        """Measure for ever."""
        while True:
            await self.measure()
            await asyncio.sleep(INTERVAL)

    async def measure(self) -> None:
        """Measure once."""
        pids = dict(self._pids())
        self._usages = await asyncio.to_thread(self._read_all, pids)
        for replica_id, usage in self._usages.items():
            if usage.memory_bytes > self._limits.memory_bytes:
                self._on_excess(replica_id, pids[replica_id])

    def _read_all(self, pids: Mapping[str, int]) -> Mapping[str, Usage]:
        usages: dict[str, Usage] = {}
        processes: dict[str, psutil.Process] = {}
        for replica_id, pid in pids.items():
            known = self._processes.get(replica_id)
            try:
                if known is None or known.pid != pid:
                    process, seen_before = psutil.Process(pid), False
                else:
                    process, seen_before = known, True
                usages[replica_id] = self._read(process, seen_before=seen_before)
            except psutil.Error:
                # It ended a moment ago; its replacement will be measured.
                continue
            processes[replica_id] = process
        self._processes = processes
        return usages

    def _read(self, process: psutil.Process, *, seen_before: bool) -> Usage:
        with process.oneshot():
            # Counts from the call before; the first one has nothing to count from.
            of_one_processor = process.cpu_percent()
            memory = _held(process)
        cpu = min(of_one_processor / self._limits.processors, 100.0) if seen_before else None
        return Usage(None if cpu is None else round(cpu, 2), memory, self._limits.memory_bytes)


def held(pid: int) -> int:
    """Bytes that would be free if this process ended: its own memory without the files it maps; 0 when it is gone."""
    try:
        return _held(psutil.Process(pid))
    except psutil.Error:
        return 0


def _held(process: psutil.Process) -> int:
    """Anonymous and shared memory of a process; all that is resident where the system does not tell them apart."""
    words = _words(Path(f"/proc/{process.pid}/status"))
    kibibytes = [int(words[at + 1]) for at, word in enumerate(words) if word in ("RssAnon:", "RssShmem:")]
    return sum(kibibytes) * 1024 if kibibytes else process.memory_info().rss


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
