"""What a process of the untrusted side does to itself: die with its parent, forget what it inherited."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import random
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""``prctl`` option: the signal the kernel sends to this process when its parent ends."""


def die_with_parent(parent_pid: int, signal_number: int) -> None:
    """Have the kernel end this process when ``parent_pid`` ends, however that happens (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)
    # The parent may have ended before the kernel was told.
    if os.getppid() != parent_pid:
        os._exit(0)


def become_runner(parent_pid: int, channel_fd: int, output_fd: int) -> int:
    """Turn a fresh fork into a runner: own session, own output, nothing inherited. Returns the channel's descriptor."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    die_with_parent(parent_pid, signal.SIGKILL)
    # A group of its own: killing it also ends the processes the model started.
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    # Move the channel out of the way of 0..2, then keep it as 3 and close all the rest.
    channel = _dup_above(channel_fd, 10)
    output = _dup_above(output_fd, 10)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(channel, 3, inheritable=False)
    os.closerange(4, os.sysconf("SC_OPEN_MAX") if sys.platform != "linux" else _highest_fd() + 1)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True)
    _reseed()
    return 3


def say(line: str) -> None:
    """Print a line to the log of whoever reads this process' output."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def kill_group(pid: int) -> None:
    """Kill a process and what it started; one that is gone is fine."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # Killed between fork and setsid: it leads no group yet.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _dup_above(fd: int, lowest: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)


def _highest_fd() -> int:
    return max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())


def _reseed() -> None:
    """Forks share their parent's random state; replicas of one model must not draw the same numbers."""
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
