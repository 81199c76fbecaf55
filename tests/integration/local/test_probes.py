"""Whether a component is ready is asked of its own process."""

import asyncio
import os
import socket
import subprocess
import sys

from servery_local import ports
from servery_local.probes import http_ok

SERVER = """
import http.server, sys
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_a_server_on_the_port_that_is_somebody_elses_is_not_the_component():
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        probe = http_ok(port, "/")
        assert asyncio.run(probe(server.pid))
        assert asyncio.run(probe(os.getpid())), "it was started by this process"
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
            assert not asyncio.run(probe(other.pid))
            other.communicate(b"\n")
        server.terminate()
    assert not asyncio.run(probe(server.pid))


def test_who_listens():
    with socket.create_server((ports.LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        assert ports.listens(os.getpid(), port)
    assert not ports.listens(os.getpid(), port)
