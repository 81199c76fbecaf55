"""Run a service: log, traces, metrics, signals, guarded background tasks, readiness, one orderly end.

``main`` builds the service, calls ``context.ready()`` when it can take work, waits for
``context.stopping`` and takes itself apart in reverse order. A background task that dies takes the whole
service down with a non-zero exit code: a supervisor restarts a dead process, nobody restarts half of one.
"""

import asyncio
import contextvars
import gc
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import structlog

from servery_common.logging import configure_logging
from servery_common.metrics_server import serve_metrics, service_registry
from servery_common.tracing import configure_tracing, shutdown_tracing

log = structlog.get_logger(__name__)

CANCEL_SECONDS = 6.0
"""How long a background task that was cancelled may take to clean up before it is cancelled once more."""
ALIVE_SECONDS = 2.0
STOP_SECONDS = 60.0
"""How long ``main`` may take to end once it was asked to stop, before it is cancelled. Longer than any
request may run; a supervisor that is less patient sends SIGKILL."""


class ServiceContext:
    """What a running service may ask of its process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.metrics = service_registry(name)
        """Takes the collectors of what this service alone can tell its operator."""
        self.is_measured = False
        """Whether anybody can see them: what exists for them alone need not run where not."""
        self.stopping = asyncio.Event()
        """Set once the service should end: by SIGTERM, SIGINT, or because a task died."""
        self.failed = False
        self.is_ready = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def ready(self) -> None:
        """Tell the supervisor that the service can take work."""
        self.is_ready = True
        if file := os.environ.get("SERVERY_HEALTH_FILE"):
            self.spawn("alive", _show_alive(Path(file)))
        calm_garbage_collector()
        log.info("service_ready")
        notify("READY=1")

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a background task that ends with the service. If it raises, the service stops, exit code 1.

        It begins with an empty context: it outlives the request, and the span, that may have started it.
        """
        task = asyncio.create_task(coroutine, name=name, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def stop(self, *, failed: bool = False) -> None:
        """Ask the service to end."""
        self.failed = self.failed or failed
        if not self.stopping.is_set():
            self.stopping.set()
            notify("STOPPING=1")

    async def cancel_tasks(self) -> None:
        """Cancel what ``spawn`` started and wait for it.

        Again after a while: on Python 3.11 ``asyncio.wait_for``, which nats-py connects with, swallows a cancellation
        that comes just when what it waits for is there.
        """
        while tasks := set(self._tasks):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CANCEL_SECONDS)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.critical("task_died", task=task.get_name(), exc_info=error)
        self.stop(failed=True)


def run(
    name: str, main: Callable[[ServiceContext], Awaitable[None]], *, process: int | None = None
) -> NoReturn:
    """Run the service in this process, on uvloop where it is installed, and exit.

    ``process`` is its number among several that are one service; the log names it.
    """
    try:
        from uvloop import new_event_loop
    except ImportError:
        new_event_loop = None
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(run_service(name, main, process=process))
    sys.exit(0)


async def run_service(
    name: str, main: Callable[[ServiceContext], Awaitable[None]], *, process: int | None = None
) -> None:
    """Run ``main`` until it ends or is asked to stop. Raises ``SystemExit(1)`` when it or a task failed."""
    configure_logging(name, process=process)
    configure_tracing(name)
    context = ServiceContext(name)
    metrics = None
    _handle_signals(context)
    log.info("service_started", pid=os.getpid())
    try:
        metrics = serve_metrics(context.metrics, process=process)
        context.is_measured = metrics is not None
        await _run_main(context, main)
    except Exception:
        log.critical("service_failed", exc_info=True)
        context.stop(failed=True)
    finally:
        context.stop()
        await context.cancel_tasks()
        await asyncio.to_thread(shutdown_tracing)
        if metrics is not None:
            await asyncio.to_thread(metrics.close)
    log.info("service_stopped", failed=context.failed)
    if context.failed:
        raise SystemExit(1)


async def _run_main(context: ServiceContext, main: Callable[[ServiceContext], Awaitable[None]]) -> None:
    running = asyncio.ensure_future(main(context))
    try:
        await wait_any(running, context.stopping)
        # Before it is ready, main is still waiting for a neighbour that may never come, and has nothing to finish.
        patience = STOP_SECONDS if context.is_ready else 0
        done, _ = await asyncio.wait({running}, timeout=patience)
        if not done and context.is_ready:
            log.error("service_stop_timed_out", seconds=STOP_SECONDS)
            context.stop(failed=True)
    finally:
        if not running.done():
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    if not running.cancelled():
        running.result()


async def _show_alive(file: Path) -> None:
    """Touch ``file`` as long as the event loop turns: whoever looks at its age knows (``deploy/docker/healthy.sh``)."""
    while True:
        file.touch()
        await asyncio.sleep(ALIVE_SECONDS)


def calm_garbage_collector() -> None:
    """Look less often for what reference counting does not free, and never again through what was made so far.

    A service that is ready has made most of what it will ever keep. Looking through all of it, every few thousand
    requests, takes a gateway a fifth of its time and shows in the 99th percentile.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 50)


def _handle_signals(context: ServiceContext) -> None:
    def stop(signum: signal.Signals) -> None:
        if context.stopping.is_set():
            # Somebody asked twice: they do not want to wait for whatever we wait for.
            os._exit(128 + signum)
        log.info("stop_requested", signal=signum.name)
        context.stop()

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop, signum)


def notify(state: str) -> None:
    """Send ``state`` to the supervisor as sd_notify(3) does. Without ``NOTIFY_SOCKET``, do nothing."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # Linux' abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(address)
            sender.sendall(state.encode())
    except OSError as error:
        log.warning("notify_failed", state=state, error=str(error))


async def cancel_until_ended(*tasks: asyncio.Task[Any], again_seconds: float = 1.0) -> None:
    """Cancel tasks and return once all have ended; what they raised is not raised here.

    One cancel may get lost: in a process that was frozen every timeout fires at the same moment, and whoever
    awaits something that ended just then takes the cancel for its own timeout's. A task that outlived it would be
    waited for for ever.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=again_seconds)
        for task in pending:
            log.warning("task_cancelled_again", task=task.get_name())


async def wait_any(*what: asyncio.Event | Awaitable[Any] | timedelta | float) -> None:
    """Return when the first of them happens: an event set, an awaitable done, a time (seconds) passed.

    Coroutines and timers that lose are cancelled; tasks and futures are the caller's and left alone. A
    failure of one of them is not raised here.
    """
    own: list[asyncio.Future[Any]] = []
    given: list[asyncio.Future[Any]] = []
    for one in what:
        if isinstance(one, asyncio.Event):
            own.append(asyncio.ensure_future(one.wait()))
        elif isinstance(one, timedelta):
            own.append(asyncio.ensure_future(asyncio.sleep(one.total_seconds())))
        elif isinstance(one, int | float):
            own.append(asyncio.ensure_future(asyncio.sleep(one)))
        elif isinstance(one, asyncio.Future):
            given.append(one)
        else:
            own.append(asyncio.ensure_future(one))
    try:
        await asyncio.wait([*own, *given], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in own:
            future.cancel()
        await asyncio.gather(*own, return_exceptions=True)
