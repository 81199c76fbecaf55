"""One runner process, seen from the worker: its socket, its output, its end."""

import asyncio
import contextlib
import json
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import structlog

from servery_common.contracts import frames
from servery_common.fair_reading import let_others_read
from servery_runner.begun import MOST_JOINED, BegunTable
from servery_worker.model_credentials import ModelCredentials
from servery_worker.model_log import LogPipe
from servery_worker.process import describe_exit, ended_itself
from servery_worker.record_stream import RecordStream

log = structlog.get_logger(__name__)

SOCKET_BUFFER_BYTES = 1024 * 1024
JOINED_BYTES = 256 * 1024
"""Writes of one turn up to this long are copied together, which takes less than to write them as they are."""
WRITTEN_BYTES = 512 * 1024
"""What is written in one turn, or one piece: to write megabytes takes milliseconds."""
EXIT_REPORT_SECONDS = 1.0
"""How long the exit status of a runner whose socket closed is waited for. It arrives within milliseconds."""

LAST_ANSWERS_SECONDS = 0.2


class RunnerFailed(Exception):
    """The model cannot be served: ``stage`` is start, import, load or predict."""

    def __init__(self, stage: str, error: str, traceback: str = "") -> None:
        super().__init__(f"{stage}: {error}")
        self.stage = stage
        self.error = error
        self.traceback = traceback


class Runner(asyncio.Protocol):
    """Records to and from one runner. ``dead`` is set once, whichever of socket and process ends first."""

    def __init__(self, directory: Path, begun: BegunTable, answer_bytes: int) -> None:
        self.directory = directory
        self.begun = begun
        self.pid = 0
        self.quick = False
        """It was forked and loaded within a moment; its replacement will be too."""
        self.load_seconds = 0.0
        """How long loading took, without what was predicted afterwards."""
        self.credentials: ModelCredentials | None = None
        self.dead = asyncio.Event()
        self.on_result: Callable[[frames.RawRecord], None] = _drop
        self.description: dict[str, Any] = {}
        self._transport: asyncio.Transport | None = None
        self._unsent: deque[bytes | memoryview] = deque()
        self._flushing_soon = False
        self._full = False
        """It has to read first."""
        self._records = RecordStream(max(answer_bytes, frames.CHUNK_BYTES))
        self._stage = "load"
        self._load_began = 0.0
        self._loaded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._exited: asyncio.Future[int] | None = None
        self._kill: Callable[[], None] = _nothing
        self._output: LogPipe | None = None

    @property
    def joined(self) -> int:
        """How many requests may share a prediction, as the loaded model's runner says; 1 when each has its own."""
        match self.description.get("batching"):
            case {"formats": [_, *_], "max_rows": int(rows)} if rows > 1:
                return min(rows, MOST_JOINED)
            case _:
                return 1

    async def attach(
        self,
        channel: socket.socket,
        pid: int,
        *,
        exited: asyncio.Future[int],
        kill: Callable[[], None],
        output: LogPipe,
    ) -> None:
        """Take over a process that was just started."""
        self.pid = pid
        self._exited = exited
        self._kill = kill
        self._output = output
        exited.add_done_callback(self._on_exit)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=channel)

    async def load(self, head: dict[str, Any], environment_vars: dict[str, str]) -> None:
        """Have it load the model; returns when it is ready. Raises RunnerFailed."""
        self._load_began = time.monotonic()
        self._write(frames.encode(frames.LOAD, 0, head, json.dumps(environment_vars).encode()))
        dead = asyncio.ensure_future(self.dead.wait())
        try:
            await asyncio.wait({self._loaded, dead}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            dead.cancel()
        if self._loaded.done():
            return self._loaded.result()
        reason = await self.end_reason()
        raise RunnerFailed(self._stage, f"The model's process {reason}.")

    def request(self, id: int, order: bytes, body: Sequence[bytes | memoryview], flags: int = 0) -> None:
        """Hand over a request, with ``frames.pack_order``; its RESULT, and CHUNKs and END, come to ``on_result``.

        ``body`` is given in pieces.
        """
        self._write(frames.start(frames.REQUEST, id, order, sum(map(len, body)), flags))
        for piece in body:
            self._write(piece)

    def cancel(self, id: int) -> None:
        """Drop a request that has not started, end one that streams. It gets its RESULT or END in any case."""
        self._write(frames.encode(frames.CANCEL, id))

    def open_window(self, id: int, count: int) -> None:
        """The client took ``count`` bytes of a stream."""
        self._write(frames.encode(frames.WINDOW, id, {"bytes": count}))

    def kill(self) -> None:
        """End it and everything it started."""
        self._kill_process()
        self._end()

    async def end_reason(self) -> str:
        """How it ended, to be read after "the model's process"."""
        if self._exited is None:
            return "did not start"
        with contextlib.suppress(TimeoutError):
            return describe_exit(await asyncio.wait_for(asyncio.shield(self._exited), EXIT_REPORT_SECONDS))
        return "closed its connection"

    def ended_itself(self) -> bool:
        """Whether the model made the process end, as far as is known by now (``end_reason`` waits for it)."""
        known = self._exited is not None and self._exited.done() and not self._exited.cancelled()
        return known and self._exited is not None and ended_itself(self._exited.result())

    async def drained(self) -> None:
        """Wait until everything it printed is in its log, for at most a second."""
        if self._output is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._output.closed.wait(), 1.0)
            self._output.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked: the classes of uvloop's transports are not asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._flush_soon()

    def data_received(self, data: bytes) -> None:
        try:
            for record in self._records.feed(data):
                self._handle(record)
        except Exception as error:
            # The other side is untrusted: what it sends may be anything, and so may what comes of it.
            log.warning("runner_spoke_nonsense", pid=self.pid, error=repr(error))
            self.kill()
        if self._transport is not None:
            let_others_read(self._transport, len(data))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._unsent.clear()
        # A process without its socket is of no use.
        self._kill_process()
        self._end()

    def _handle(self, record: frames.RawRecord) -> None:
        if record.kind in (frames.RESULT, frames.CHUNK, frames.END):
            self.on_result(record)
        elif self._loaded.done():
            raise frames.FrameError(f"record of kind {record.kind} after loading")
        else:
            self._on_loading(record.kind, frames.read_head(record.head))

    def _on_loading(self, kind: int, head: dict[str, Any]) -> None:
        if kind == frames.READY and head.get("predicting"):
            self._stage = "predict"
            self.load_seconds = time.monotonic() - self._load_began
        elif kind == frames.READY:
            self.description = head
            self._loaded.set_result(None)
        elif kind == frames.FAILED:
            self._loaded.set_exception(
                RunnerFailed(**{name: str(head[name]) for name in ("stage", "error", "traceback")})
            )

    def _kill_process(self) -> None:
        # Once its end was reported, its number may belong to somebody else.
        if self._exited is None or not self._exited.done():
            self._kill()

    def _on_exit(self, _: asyncio.Future[int]) -> None:
        # Its last answers may still be in the socket, whose end follows them. Unless a process that the
        # model started holds the other end open: hence not for ever.
        asyncio.get_running_loop().call_later(LAST_ANSWERS_SECONDS, self._end)

    def _write(self, data: bytes | memoryview) -> None:
        """Send soon: what one turn of the event loop has for the runner takes one system call."""
        if self._transport is not None:
            self._unsent.append(data)
            self._flush_soon()

    def _flush_soon(self) -> None:
        if self._unsent and not self._flushing_soon and not self._full:
            self._flushing_soon = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing_soon = False
        if not self._unsent or self._full or self._transport is None:
            return
        now = [self._unsent.popleft()]
        size = len(now[0])
        while self._unsent and size + len(self._unsent[0]) <= WRITTEN_BYTES:
            now.append(self._unsent.popleft())
            size += len(now[-1])
        if size <= JOINED_BYTES:
            self._transport.write(b"".join(now))
        else:
            self._transport.writelines(now)
        self._flush_soon()

    def _end(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        if self._loaded.done() and not self._loaded.cancelled():
            # Looked at, so that a failure nobody waits for any more is not reported as forgotten.
            self._loaded.exception()
        self.dead.set()


def _drop(_record: frames.RawRecord) -> None:
    return None


def _nothing() -> None:
    return None
