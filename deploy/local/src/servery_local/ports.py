"""Find TCP ports, and say who has the one that was asked for."""

from __future__ import annotations

import socket
from contextlib import closing

import psutil

from servery_local.errors import PortTaken

LOOPBACK = "127.0.0.1"


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Tell whether a server could listen on `port` now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        # As servers do: connections that linger after their server's end do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def require_free(port: int, host: str) -> None:
    """Raise `PortTaken`, with the way out, if the gateway cannot listen on `port`."""
    if not is_free(port, host):
        raise PortTaken(
            f"port {port} on {host} is taken{_holder(port)}.\n"
            "Choose another one for the gateway with `servery up --port N`."
        )


def pick(*preferred: int | None, avoid: frozenset[int] = frozenset()) -> int:
    """Return the first free port of `preferred` on the loopback interface, else any free one."""
    for port in preferred:
        if port is not None and port not in avoid and is_free(port):
            return port
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def _holder(port: int) -> str:
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.Error:  # some systems tell only root
        return ""
    for connection in connections:
        listens = connection.status == psutil.CONN_LISTEN
        if listens and connection.laddr and connection.laddr.port == port and connection.pid:
            try:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except psutil.Error:
                return ""
    return ""
