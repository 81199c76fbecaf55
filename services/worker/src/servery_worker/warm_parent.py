"""One warm parent process, seen from the worker: start it, have it fork runners, learn how they ended."""

import array
import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from servery_runner import control
from servery_worker.model_log import LogPipe, ModelLog
from servery_worker.process import describe_exit, kill_group, spawn

log = structlog.get_logger(__name__)

FORK_TIMEOUT_SECONDS = 10.0
"""A fork takes milliseconds; a parent that does not answer for this long is broken and is replaced."""


Forked = tuple[int, "asyncio.Future[int]"]
"""A runner's pid and its exit status to be."""


class WarmParentFailed(Exception):
    """The interpreter cannot be started, ended, or does not answer. One line, for people."""

    def __init__(self, message: str, stage: str = "import") -> None:
        super().__init__(message)
        self.stage = stage


class WarmParent:
    """A process of one model environment that has imported its framework and forks runners."""

    def __init__(self, environment_key: str) -> None:
        self.environment_key = environment_key
        self.unforkable = ""
        """Why its forks would not work; then runners start without it."""
        self.log = ModelLog()
        self.died = asyncio.Event()
        self.pid = 0
        self._warm = asyncio.Event()
        self._control: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._output: LogPipe | None = None
        self._lines = control.Lines()
        self._forks: dict[int, asyncio.Future[Forked]] = {}
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._last_fork = 0

    @property
    def runners(self) -> int:
        """How many of its runners are alive, those being forked included."""
        return len(self._exits) + len(self._forks)

    async def start(
        self,
        python: str,
        modules: Sequence[str],
        *,
        overlay: Path,
        environment: Mapping[str, str],
        timeout: float,
    ) -> None:
        """Start it and wait until it has imported everything. Raises WarmParentFailed."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        command = ["-m", "servery_runner", "--control-fd", str(theirs.fileno())]
        try:
            self._process, self._output = await spawn(
                python,
                [*command, "--worker-pid", str(os.getpid()), *modules],
                theirs,
                overlay=overlay,
                environment=environment,
                log=self.log,
            )
        except OSError as error:
            ours.close()
            raise WarmParentFailed(f"{python} cannot be started: {error.strerror}", "start") from error
        finally:
            theirs.close()
        self.pid = self._process.pid
        self._control = ours
        asyncio.get_running_loop().add_reader(ours, self._receive)
        await self._until_warm(timeout)

    async def fork(self, channel: socket.socket, output_fd: int) -> Forked:
        """Fork a runner on these descriptors. Returns its pid and its exit status to be. Raises WarmParentFailed."""
        self._last_fork += 1
        number = self._last_fork
        forked = self._forks[number] = asyncio.get_running_loop().create_future()
        descriptors = array.array("i", [channel.fileno(), output_fd])
        try:
            if self._control is None:
                raise WarmParentFailed(self._why_dead())
            order = control.encode(control.FORK, id=number)
            self._control.sendmsg([order], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors.tobytes())])
            return await asyncio.wait_for(forked, FORK_TIMEOUT_SECONDS)
        except TimeoutError:
            self.close()
            self._kill()
            raise WarmParentFailed("the warm parent does not answer") from None
        except OSError as error:
            forked.cancel()
            self.close()
            raise WarmParentFailed(f"the warm parent does not take orders: {error}") from error
        finally:
            self._forks.pop(number, None)

    def kill(self, pid: int) -> None:
        """Kill one of its runners and what that started. The parent does it: it alone knows the pid is still theirs."""
        if self._control is None:
            kill_group(pid)
            return
        try:
            self._control.send(control.encode(control.KILL, pid=pid))
        except OSError:
            kill_group(pid)

    def close(self) -> None:
        """End it and its runners."""
        if self._control is None:
            return
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        self._control = None
        if self._process is not None and self._process.returncode is None:
            # It would end at the end of file; SIGTERM also ends one that still imports.
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
        self._abandon()

    async def closed(self, patience: float = 2.0) -> None:
        """Wait for its end after ``close``; kill it if that takes longer than ``patience`` seconds."""
        if self._process is None:
            return
        try:
            await asyncio.wait_for(self._process.wait(), patience)
        except TimeoutError:
            self._kill()
            await self._process.wait()

    def _kill(self) -> None:
        """End it although it does not react to SIGTERM: it may be frozen, and would stay so."""
        # Once it is waited for, its number may belong to somebody else.
        if self._process is not None and self._process.returncode is None:
            kill_group(self._process.pid)

    async def _until_warm(self, timeout: float) -> None:
        dead = asyncio.ensure_future(self.died.wait())
        warm = asyncio.ensure_future(self._warm.wait())
        try:
            await asyncio.wait({dead, warm}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            dead.cancel()
            warm.cancel()
        if self._warm.is_set():
            return
        if self.died.is_set():
            assert self._process is not None
            assert self._output is not None
            status = await self._process.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._output.closed.wait(), 1.0)
            raise WarmParentFailed(f"the interpreter {describe_exit(status)}{self._last_words()}")
        self.close()
        raise WarmParentFailed(f"importing did not finish within {timeout:g} s")

    def _receive(self) -> None:
        assert self._control is not None
        try:
            data = self._control.recv(64 * 1024)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            log.warning("warm_parent_died", environment_key=self.environment_key, pid=self.pid)
            self.close()
            return
        for message in self._lines.feed(data):
            self._handle(message)

    def _handle(self, message: dict[str, Any]) -> None:
        match message["what"]:
            case control.WARM:
                self.unforkable = message["unforkable"]
                self._warm.set()
            case control.FORKED:
                pid = message["pid"]
                exited = self._exits[pid] = asyncio.get_running_loop().create_future()
                # Both at once: it may have ended before whoever ordered it runs again.
                self._answer(message["id"], (pid, exited))
            case control.REFUSED:
                self._answer(message["id"], WarmParentFailed(f"fork failed: {message['error']}"))
            case control.EXITED:
                exited = self._exits.pop(message["pid"], None)
                if exited is not None and not exited.done():
                    exited.set_result(message["status"])
            case unknown:
                log.error("warm_parent_message_unknown", what=unknown)

    def _answer(self, id: int, answer: Forked | WarmParentFailed) -> None:
        forked = self._forks.pop(id, None)
        abandoned = forked is None or forked.done()
        if isinstance(answer, WarmParentFailed):
            if forked is not None and not abandoned:
                forked.set_exception(answer)
        elif forked is None or abandoned:
            # Whoever ordered this fork gave up waiting; nobody else knows its pid.
            self.kill(answer[0])
        else:
            forked.set_result(answer)

    def _abandon(self) -> None:
        """Its runners die with it: the kernel sees to the processes, this to those who wait for them."""
        self.died.set()
        for forked in self._forks.values():
            if not forked.done():
                forked.set_exception(WarmParentFailed(self._why_dead()))
        for pid, exited in self._exits.items():
            kill_group(pid)
            if not exited.done():
                exited.set_result(-signal.SIGKILL)
        self._exits.clear()

    def _why_dead(self) -> str:
        return f"the warm parent of environment {self.environment_key} is gone"

    def _last_words(self) -> str:
        lines = [line for line in self.log.tail(20) if line.strip()]
        return f": {lines[-1].strip()}" if lines else ""
