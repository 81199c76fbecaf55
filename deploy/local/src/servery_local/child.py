"""Keep one component running: start it, wait until it is ready, restart it when it dies.

    run():  prepare -> start -> (ready | died | too late) -> died -> back-off -> prepare -> …

A component that has never been ready and fails ends `run` with `ComponentFailed`; one that has been
ready is restarted for ever. Every child leads a process group of its own, and what is left of the
group when its leader dies is killed, so that a restart finds the ports free.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from servery_local import launch
from servery_local.errors import ComponentFailed
from servery_local.logs import LineLog
from servery_local.notify import ReadyListener
from servery_local.probes import Probe
from servery_local.processes import ProcessIdentity, identify
from servery_local.reporter import Reporter
from servery_local.restarts import RestartPolicy
from servery_local.state import ComponentState, ComponentStatus

log = structlog.get_logger()

PROBE_INTERVAL = 0.1
READ_SIZE = 65536


@dataclass(frozen=True)
class UnixUser:
    """Whom a child runs as, when the supervisor is root and the child must not be."""

    uid: int
    gid: int


@dataclass(frozen=True)
class ChildSpec:
    """One component: how to start it, to know that it is ready, and to stop it."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    stop_signal: signal.Signals = signal.SIGTERM
    """Asks for a graceful end; also sent by the kernel when the supervisor dies."""
    stop_grace: float = 8.0
    """Seconds after which a child that was asked to end is killed."""
    stop_stage: int = 0
    """Children of a lower stage are stopped first, those of one stage together."""
    user: UnixUser | None = None
    probe: Probe | None = None
    """None: the child says by sd_notify(3) that it is ready."""
    prepare: Callable[[], Awaitable[None]] | None = None
    """Run before every start; raises `ComponentFailed` if starting makes no sense."""


@dataclass
class Child:
    """One supervised component. `changed` is called after every change of `status`."""

    spec: ChildSpec
    runtime: Path
    output: LineLog
    reporter: Reporter
    changed: Callable[[], None]
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    ready_within: float = 60.0

    def __post_init__(self) -> None:
        self.ready = asyncio.Event()
        """Set when the component has been ready for the first time."""
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._state = ComponentState.STARTING
        self._process: asyncio.subprocess.Process | None = None
        self._identity: ProcessIdentity | None = None
        self._since: float | None = None
        self._ready_seconds: float | None = None
        self._restarts = 0

    @property
    def pid(self) -> int | None:
        """The process of the component, while there is one."""
        return self._process.pid if self._process else None

    @property
    def status(self) -> ComponentStatus:
        """What `servery status` shows."""
        return ComponentStatus(
            name=self.spec.name,
            state=self._state,
            process=self._identity,
            stop_signal=self.spec.stop_signal,
            since=self._since,
            ready_seconds=self._ready_seconds,
            restarts=self._restarts,
        )

    async def run(self) -> None:
        """Keep the component running until `stop`, or until it is clear that it cannot run."""
        deaths = 0
        first_start = time.monotonic()
        try:
            while not self._stopping.is_set():
                started = time.monotonic()
                # Until it has been ready once, all attempts together have the time of one.
                ending = await self._run_once(started if self.ready.is_set() else first_start)
                if self._stopping.is_set():
                    return
                deaths = self.policy.deaths_after(deaths, time.monotonic() - started)
                if self.policy.is_hopeless(deaths, was_ready=self.ready.is_set()):
                    raise ComponentFailed(self.spec.name, f"{ending}, {deaths} times in a row")
                await self._back_off(deaths, ending)
        finally:
            self._set_state(ComponentState.STOPPED)
            self._ended.set()

    async def stop(self) -> None:
        """End the component: ask, wait, kill. Returns when its process group is gone."""
        self._stopping.set()
        if self._process is not None:
            self._signal(self.spec.stop_signal)
        try:
            await asyncio.wait_for(self._ended.wait(), self.spec.stop_grace)
        except TimeoutError:
            log.warning("component_killed", component=self.spec.name, grace=self.spec.stop_grace)
            self.kill()
            await self._ended.wait()

    def kill(self) -> None:
        """End the component's process group at once."""
        self._stopping.set()
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _run_once(self, counted_from: float) -> str:
        """Start the process and wait for its end; returns how it ended, in words.

        `counted_from` is the monotonic time from which the time to become ready counts.
        """
        listener = None
        try:
            if self.spec.prepare is not None:
                await self.spec.prepare()
            if self._stopping.is_set():
                return "was stopped"
            if self.spec.probe is None:
                listener = ReadyListener(self.runtime / self.spec.name)
            pipe = await self._start(listener)
        except OSError as error:
            # No memory, no descriptors, a full disk: it may work the next time.
            if listener is not None:
                listener.close()
            log.warning("component_not_started", component=self.spec.name, error=repr(error))
            return f"could not be started ({error.strerror or error})"
        assert self._process is not None
        exited = asyncio.create_task(self._process.wait(), name=f"{self.spec.name} exit")
        ready = asyncio.create_task(self._wait_ready(listener), name=f"{self.spec.name} ready")
        try:
            timeout = max(0.0, counted_from + self.ready_within - time.monotonic())
            await asyncio.wait({exited, ready}, timeout=timeout, return_when="FIRST_COMPLETED")
            if not ready.done() and not exited.done() and not self._stopping.is_set():
                return self._too_late()
            if ready.done() and not exited.done():
                ready.result()
                self._became_ready(time.monotonic() - counted_from)
            code = await exited
            log.info("component_exited", component=self.spec.name, code=code)
            return describe_exit(code)
        finally:
            ready.cancel()
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await exited
            self._drain(pipe)
            if listener is not None:
                listener.close()
            self._process = self._identity = None

    async def _start(self, listener: ReadyListener | None) -> int:
        """Start the process; returns the end of the pipe from which its output is read."""
        env = dict(self.spec.env)
        if listener is not None:
            env["NOTIFY_SOCKET"] = str(listener.path)
        user = self.spec.user
        command = launch.command(
            self.spec.argv,
            death_signal=self.spec.stop_signal,
            uid=user.uid if user else None,
            gid=user.gid if user else None,
        )
        # A pipe of our own: waiting for the end of the process must not mean waiting until all of
        # its descendants have closed their output.
        reading, writing = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                cwd=self.spec.cwd,
                env=env,
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        os.set_blocking(reading, False)
        asyncio.get_running_loop().add_reader(reading, self._read, reading)
        self._identity = identify(self._process.pid)
        self._since = time.time()
        self._set_state(ComponentState.STARTING)
        log.info("component_started", component=self.spec.name, pid=self._process.pid)
        if self._stopping.is_set():  # asked while the process was being made
            self._signal(self.spec.stop_signal)
        return reading

    async def _wait_ready(self, listener: ReadyListener | None) -> None:
        if listener is not None:
            await listener.ready.wait()
            return
        assert self.spec.probe is not None
        assert self._process is not None
        while not await self.spec.probe(self._process.pid):  # noqa: ASYNC110 - nobody can tell us
            await asyncio.sleep(PROBE_INTERVAL)

    def _became_ready(self, seconds: float) -> None:
        self._set_state(ComponentState.RUNNING)
        log.info("component_ready", component=self.spec.name, seconds=round(seconds, 2))
        if self.ready.is_set():
            self.reporter.restarted(self.spec.name)
            return
        self._ready_seconds = round(seconds, 2)
        self.ready.set()
        self.reporter.ready(self.spec.name, seconds)
        self.changed()

    def _too_late(self) -> str:
        reason = f"was not ready within {self.ready_within:.0f} s"
        log.warning("component_not_ready", component=self.spec.name, seconds=self.ready_within)
        if not self.ready.is_set():
            raise ComponentFailed(self.spec.name, reason)
        return reason

    async def _back_off(self, deaths: int, ending: str) -> None:
        delay = self.policy.delay(deaths, random.random())
        self._restarts += 1
        self._since = None
        self._set_state(ComponentState.RESTARTING)
        log.warning("component_died", component=self.spec.name, ending=ending, restart_in=delay)
        self.reporter.died(self.spec.name, ending, delay)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), delay)

    def _read(self, pipe: int) -> bool:
        """Take what the component has printed; returns whether there may be more."""
        try:
            data = os.read(pipe, READ_SIZE)
        except BlockingIOError:
            return False
        if not data:
            asyncio.get_running_loop().remove_reader(pipe)
            return False
        self.output.feed(data)
        return True

    def _drain(self, pipe: int) -> None:
        while self._read(pipe):
            pass
        asyncio.get_running_loop().remove_reader(pipe)
        os.close(pipe)
        self.output.end()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _set_state(self, state: ComponentState) -> None:
        self._state = state
        self.changed()


def describe_exit(code: int) -> str:
    """Say how a process ended; negative codes are signals, as in `subprocess`."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
