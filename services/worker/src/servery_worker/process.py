"""Child processes: start an interpreter, read what it prints, end it with all it started, say how it ended."""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from servery_worker.model_log import LogPipe, ModelLog

PIPE_BYTES = 256 * 1024

_CRASHES = (
    signal.SIGSEGV,
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSYS,
    signal.SIGTRAP,
)


async def spawn(
    python: str,
    arguments: Sequence[str],
    channel: socket.socket,
    *,
    overlay: Path,
    environment: Mapping[str, str],
    log: ModelLog,
) -> tuple[asyncio.subprocess.Process, LogPipe]:
    """Start an interpreter of a model's environment that inherits only ``channel``. Raises OSError."""
    read_end, write_end = os.pipe()
    try:
        # Before the process: whatever fails from here on, no process is left that nobody knows of.
        pipe = await read_pipe(read_end, log)
        try:
            process = await asyncio.create_subprocess_exec(
                python,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                pass_fds=[channel.fileno()],
                # ``-m`` puts the working directory first on the path: the overlay, and nothing a model can write to.
                cwd=overlay,
                env=dict(environment),
                start_new_session=True,
            )
        except BaseException:
            pipe.close()
            raise
    finally:
        os.close(write_end)
    return process, pipe


async def read_pipe(read_end: int, log: ModelLog) -> LogPipe:
    """Have what comes out of a pipe appended to a log; the descriptor belongs to the result. Raises OSError."""
    file = os.fdopen(read_end, "rb", 0)
    try:
        os.set_blocking(read_end, False)
        _widen(read_end)
        _, pipe = await asyncio.get_running_loop().connect_read_pipe(lambda: LogPipe(log), file)
    except BaseException:
        # A cancelled connect has closed it; saying so must not take the place of the cancellation, or a replica that
        # is stopped while it starts a runner would never end.
        with contextlib.suppress(OSError):
            file.close()
        raise
    return pipe


def _widen(pipe: int) -> None:
    """Let a pipe hold what one read takes (Linux); it stays as it is where the user's pipes hold too much already."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def kill_group(pid: int) -> None:
    """Kill a process and what it started; gone is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def ended_itself(status: int) -> bool:
    """Whether the process made its own end: it exited, or crashed. False when it was killed from outside."""
    return status >= 0 or -status in _CRASHES


def describe_exit(status: int) -> str:
    """How a process ended, for people."""
    if status >= 0:
        return f"exited with status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    hint = " (out of memory?)" if status == -signal.SIGKILL and sys.platform == "linux" else ""
    return f"was killed by {name}{hint}"
