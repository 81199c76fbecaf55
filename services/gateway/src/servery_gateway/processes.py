"""Several gateways as one service: processes behind one port, each replaced when it dies.

    start ──> all ready: READY=1 ──> one dies: another in its place, the others go on
                                 └─> SIGTERM: all drain, then this process ends

This process only watches: it has no event loop and no connections, so it can fork. A fork has everything imported
and shares the memory of it; a replacement listens within a fraction of a second.
"""

import contextlib
import ctypes
import gc
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import structlog

from servery_common.service import STOP_SECONDS, notify

PR_SET_PDEATHSIG = 1
KILL_AFTER = STOP_SECONDS + 5.0
"""Seconds after SIGTERM. A process ends itself after ``STOP_SECONDS``; one that hangs does not."""
STABLE_SECONDS = 10.0
"""A process that lived longer did not die of how it was started: its replacement is not delayed."""
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0

RunChild = Callable[[int, Callable[[], None]], int]
"""Runs process number n, calls back when it is ready, and returns its exit code."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Process:
    number: int
    pid: int
    pipe: int
    """Readable: one byte when it is ready, the end when it ended, however that came."""
    started_at: float


class Processes:
    """Keeps ``count`` processes running. Only for a process without threads."""

    def __init__(self, count: int, run_child: RunChild) -> None:
        self._count = count
        self._run_child = run_child
        self._parent = os.getpid()
        self._running: dict[int, _Process] = {}
        self._ready: set[int] = set()
        self._was_ready = False
        self._deaths = dict.fromkeys(range(1, count + 1), 0)
        """In a row, of processes that died young, by number."""
        self._due: dict[int, float] = {}
        """When to start which number again."""
        self._stopping = False
        self._failed = False
        self._kill_at = float("inf")
        self._selector = selectors.DefaultSelector()
        self._signals, self._wakeup = socket.socketpair()

    def run(self) -> int:
        """Start all, replace those that die, until asked to stop; return the exit code."""
        self._catch_signals()
        gc.collect()
        gc.freeze()  # or each process would copy the memory it shares when it first collects
        for number in range(1, self._count + 1):
            self._start(number)
        while self._running or self._due:
            for key, _ in self._selector.select(self._patience()):
                if isinstance(key.data, _Process):
                    self._heard(key.data)
                else:
                    self._signalled()
            self._start_due()
            if time.monotonic() >= self._kill_at:
                self._signal_all(signal.SIGKILL)
        return int(self._failed)

    def _start(self, number: int) -> None:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            self._be_child(number, writing)
        os.close(writing)
        process = self._running[number] = _Process(number, pid, reading, time.monotonic())
        self._selector.register(reading, selectors.EVENT_READ, process)
        log.info("gateway_process_started", process=number, pid=pid)

    def _be_child(self, number: int, pipe: int) -> None:
        """Run in a fresh fork, and never return."""

        def ready() -> None:
            os.write(pipe, b"1")

        code = 1
        try:
            # Of a group of its own: Ctrl-C in a terminal goes to everybody, and twice means to end at once.
            os.setpgid(0, 0)
            _die_with(self._parent)
            self._forget_parent()
            code = self._run_child(number, ready)
        except BaseException:
            # Whatever it is, nobody else would tell of it: this process ends here.
            log.critical("gateway_process_failed", process=number, exc_info=True)
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            os._exit(code)

    def _forget_parent(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        # Readiness is that of all; it is told by the parent.
        os.environ.pop("NOTIFY_SOCKET", None)
        self._selector.close()
        self._signals.close()
        self._wakeup.close()
        for process in self._running.values():
            os.close(process.pipe)

    def _heard(self, process: _Process) -> None:
        if os.read(process.pipe, 1):
            self._ready.add(process.number)
            if not self._was_ready and len(self._ready) == self._count:
                self._was_ready = True
                log.info("service_ready", processes=self._count)
                notify("READY=1")
            return
        self._selector.unregister(process.pipe)
        os.close(process.pipe)
        _, status = os.waitpid(process.pid, 0)
        del self._running[process.number]
        self._ready.discard(process.number)
        self._ended(process, os.waitstatus_to_exitcode(status))

    def _ended(self, process: _Process, code: int) -> None:
        """Decide what follows; ``code`` is negative for a signal."""
        if self._stopping:
            self._failed = self._failed or code != 0
            return
        if not self._was_ready:
            # As a single gateway that cannot start: whoever supervises the service decides what to do.
            log.critical("gateway_process_did_not_start", process=process.number, code=code)
            self._failed = True
            self._stop(signal.SIGTERM)
            return
        now = time.monotonic()
        young = now - process.started_at < STABLE_SECONDS
        self._deaths[process.number] = self._deaths[process.number] + 1 if young else 1
        delay = restart_delay(self._deaths[process.number])
        self._due[process.number] = now + delay
        log.warning("gateway_process_died", process=process.number, code=code, restart_in=delay)

    def _start_due(self) -> None:
        now = time.monotonic()
        for number in [number for number, at in self._due.items() if at <= now]:
            del self._due[number]
            self._start(number)

    def _signalled(self) -> None:
        for number in self._signals.recv(64):
            self._stop(signal.Signals(number))

    def _stop(self, signum: signal.Signals) -> None:
        if not self._stopping:
            log.info("stop_requested", signal=signum.name)
            self._stopping = True
            self._kill_at = time.monotonic() + KILL_AFTER
            self._due.clear()
            notify("STOPPING=1")
        # Again, too: who asks twice does not want to wait.
        self._signal_all(signum)

    def _signal_all(self, signum: signal.Signals) -> None:
        for process in self._running.values():
            # One that has ended is a zombie until it is waited for: its pid is nobody else's.
            os.kill(process.pid, signum)

    def _patience(self) -> float | None:
        next_at = min((*self._due.values(), self._kill_at))
        return None if next_at == float("inf") else max(0.0, next_at - time.monotonic())

    def _catch_signals(self) -> None:
        def woken(_number: int, _frame: FrameType | None) -> None:
            """What wakes the selector is the byte that the interpreter writes."""

        self._wakeup.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, woken)
        self._selector.register(self._signals, selectors.EVENT_READ)


def restart_delay(deaths: int) -> float:
    """Return the seconds until a process is started again that died so many times in a row, young."""
    return min(LONGEST_DELAY, FIRST_DELAY * 2 ** (deaths - 1))


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that happens."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    # The parent may have ended before the kernel was told.
    if os.getppid() != parent:
        os._exit(0)
