"""The way to an engine in another network, as SSH opens one: a socket in a directory. Here it leads to this one."""

import asyncio
import contextlib
import os
import threading
from pathlib import Path
from typing import Any

ENGINE = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")


class EngineSocket:
    """``directory/engine.sock``, from ``open`` to ``close``; another file each time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.chmod(0o755)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    def open(self) -> None:
        self._run(self._open())

    def close(self) -> None:
        """End all connections, and remove the socket."""
        self._run(self._close())

    def end(self) -> None:
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, what: Any) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    async def _open(self) -> None:
        file = self.directory / "engine.sock"
        self._server = await asyncio.start_unix_server(self._carry, file)
        file.chmod(0o660)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        (self.directory / "engine.sock").unlink(missing_ok=True)
        for end in self._ends:
            end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(ENGINE)
        self._ends |= {writer, far_writer}
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        finally:
            self._ends -= {writer, far_writer}
            writer.close()
            far_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        # One side of a connection may end before the other: a build's context has been sent.
        writer.write_eof()
