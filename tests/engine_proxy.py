"""A way to the Docker engine that a test may close and open again: a unix socket in front of the real one."""

import asyncio
import contextlib
from pathlib import Path

ENGINE = "/var/run/docker.sock"


class EngineProxy:
    """Passes bytes on. ``url`` is a DOCKER_HOST."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "engine.sock"
        self.url = f"unix://{self.path}"
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self._cut_at = b""
        self._cut_after = 0
        self._closing: asyncio.Task[None] | None = None
        self.was_cut = asyncio.Event()

    def cut(self, at: bytes, after_bytes: int = 0) -> None:
        """Close the way once, as soon as a client has sent ``at`` and so many bytes more on that connection."""
        self._cut_at, self._cut_after = at, after_bytes
        self.was_cut.clear()

    async def open(self) -> None:
        """The engine can be reached."""
        self._server = await asyncio.start_unix_server(self._connected, self.path)

    async def close(self) -> None:
        """The engine is gone: connections break off, new ones are refused. The socket stays, as an engine's does."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        for pipe in list(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        try:
            engine_reader, engine_writer = await asyncio.open_unix_connection(ENGINE)
            try:
                await asyncio.gather(
                    self._pass_on(reader, engine_writer, watch=True), self._pass_on(engine_reader, writer)
                )
            finally:
                engine_writer.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._pipes.discard(task)

    async def _pass_on(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, watch: bool = False
    ) -> None:
        left: int | None = None
        while data := await source.read(65536):
            if watch and self._cut_at and left is None and self._cut_at in data:
                left = self._cut_after
            elif left is not None:
                left -= len(data)
            if left is not None and left <= 0 and self._cut_at:
                self._cut_at = b""
                self.was_cut.set()
                self._closing = asyncio.create_task(self.close())
                return
            target.write(data)
            await target.drain()
        with contextlib.suppress(OSError):
            target.write_eof()
