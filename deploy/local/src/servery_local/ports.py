"""Find TCP ports, and say who has the one that was asked for."""

from __future__ import annotations

import errno
import random
import socket
from contextlib import closing

import psutil

from servery_local.errors import LocalError, PortTaken

LOOPBACK = "127.0.0.1"
_OURS = range(20_000, 32_000)
"""Below what Linux, macOS and IANA hand out to outgoing connections. A server that is started again after a crash
finds its port free then: a client that tries to reconnect to a port of that other kind is now and then given the very
port as its own, is connected to itself, and keeps the server out."""
_TRIES = 100


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Tell whether a server could listen on `port` now."""
    return _why_not(port, host) is None


def require_free(port: int, host: str) -> None:
    """Raise a `LocalError`, with the way out, if the gateway cannot listen on `port`; `PortTaken` if it is in use."""
    error = _why_not(port, host)
    if error is None:
        return
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        raise LocalError(
            f"{host} is not an address of this machine, so the gateway cannot listen on it.\n"
            "Choose one of its own with --host: 127.0.0.1 for this machine alone, 0.0.0.0 for everybody."
        )
    if error.errno != errno.EADDRINUSE:
        raise LocalError(
            f"the gateway cannot listen on port {port} of {host}: {error.strerror}.\n"
            "Choose another address with --host and --port."
        )
    raise PortTaken(
        f"port {port} on {host} is taken{_holder(port)}.\nChoose another one for the gateway with --port, or with"
        " SERVERY_GATEWAY_PORT in front of the command."
    )


def pick(*preferred: int | None, avoid: frozenset[int] = frozenset()) -> int:
    """Return the first free port of `preferred` on the loopback interface, else any free one."""
    others = random.sample(_OURS, _TRIES)
    for port in (*preferred, *others):
        if port is not None and port not in avoid and is_free(port):
            return port
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def listens(pid: int, port: int) -> bool:
    """Tell whether a process, or one it started, is who listens on `port`; True where the system does not say."""
    try:
        process = psutil.Process(pid)
        family = (process, *process.children(recursive=True))
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            for member in family
            for connection in member.net_connections(kind="tcp")
        )
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _why_not(port: int, host: str) -> OSError | None:
    """Return what a server that listens on `port` now would run into."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        # As servers do: connections that linger after their server's end do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
        return None


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
