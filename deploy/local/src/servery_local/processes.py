"""Name processes so that a reused pid is never mistaken for the process that had it before.

A pid alone says nothing once its process is gone. Together with the moment the process started it
names one process for ever. On Linux that moment is counted in clock ticks since boot, which no
adjustment of the wall clock can change, and is kept beside the id of the boot.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36
STACK_VARIABLE = "SERVERY_STACK"
"""Set in the environment of every child to the id of the data directory, to find leftovers by."""


@dataclass(frozen=True)
class ProcessIdentity:
    """One process: its pid, and an opaque text that differs for every process that has that pid."""

    pid: int
    incarnation: str


def identify(pid: int) -> ProcessIdentity | None:
    """Return the identity of the process that has `pid` now; None if there is none or a zombie."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        if sys.platform == "linux":
            return ProcessIdentity(pid, f"{_boot_id()}/{_start_ticks(pid)}")
        return ProcessIdentity(pid, str(process.create_time()))
    except (psutil.Error, OSError):
        return None


def is_alive(identity: ProcessIdentity) -> bool:
    """Tell whether exactly this process still runs; a zombie does not."""
    return identify(identity.pid) == identity


def send(identity: ProcessIdentity, number: signal.Signals) -> bool:
    """Signal exactly this process. Returns False if it is gone already."""
    if not is_alive(identity):
        return False
    try:
        os.kill(identity.pid, number)
    except ProcessLookupError:
        return False
    return True


def wait_gone(identities: Iterable[ProcessIdentity], timeout: float) -> list[ProcessIdentity]:
    """Wait at most `timeout` seconds for the processes to end; return those that still run."""
    deadline = time.monotonic() + timeout
    left = [identity for identity in identities if is_alive(identity)]
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [identity for identity in left if is_alive(identity)]
    return left


def descendants(pid: int) -> list[ProcessIdentity]:
    """Return all processes below `pid`, at any depth."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
    return [identity for child in children if (identity := identify(child.pid)) is not None]


def carrying(stack_id: str) -> list[ProcessIdentity]:
    """Return all processes whose environment says that they belong to the stack `stack_id`.

    Processes of other users, whose environment cannot be read, are left out.
    """
    if not stack_id:
        raise ValueError("an empty id would name no stack")
    found: list[ProcessIdentity] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(STACK_VARIABLE) == stack_id:
                identity = identify(process.pid)
                if identity is not None:
                    found.append(identity)
    return found


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, so that none gets lost."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(own: Iterable[int]) -> None:
    """Collect adopted children that ended; the pids in `own` are waited for by somebody else."""
    keep = set(own)
    for child in psutil.Process().children():
        with suppress(psutil.Error, ChildProcessError):
            if child.pid not in keep and child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_ticks(pid: int) -> str:
    # The command name in parentheses may contain spaces and parentheses: count from its end.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[19]
