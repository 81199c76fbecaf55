"""What the generator itself takes for a request, found out against a server that does nothing."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvloop
from tests.benchmarks.load.client import Target

BODY = '{"predictions": [0]}'
REQUEST = '{"inputs": [1]}'
_ANSWER = f"HTTP/1.1 200 OK\r\ncontent-length: {len(BODY)}\r\n\r\n{BODY}".encode()


class _Answering(asyncio.Protocol):
    """Answers whatever arrives: one request is one segment here, for it is short and none is sent ahead."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(_ANSWER)  # type: ignore[attr-defined]


@contextmanager
def trivial_server() -> Iterator[Target]:
    """Run it in a process of its own."""
    with subprocess.Popen([sys.executable, "-m", __name__], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield Target("nothing", f"http://127.0.0.1:{port}", "/", REQUEST, {}, BODY)
        finally:
            process.terminate()


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Answering, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
