"""One port for several processes: each listens on a socket of its own, and the kernel divides new connections (Linux).

``SO_REUSEPORT`` rather than one socket that all accept from: there the first process to wake takes all connections
that wait, and clients that keep theirs would have found one busy process and idle ones.
"""

import contextlib
import socket
from collections.abc import Generator
from typing import NamedTuple


class Address(NamedTuple):
    """Where to listen, resolved."""

    family: socket.AddressFamily
    at: tuple[str, int]


@contextlib.contextmanager
def reserved_port(host: str, port: int) -> Generator[list[Address]]:
    """Keep a port, or one that the system chooses for 0, for processes of this user; yield where they may listen.

    Raises OSError when somebody listens there, or the host is unknown.
    """
    with contextlib.ExitStack() as held:
        addresses: list[Address] = []
        for family, _, _, _, at in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            # Whoever listens with SO_REUSEPORT would let us join: two installations on one port.
            with _bound(Address(family, (str(at[0]), port)), shared=False):
                pass
            # Bound, but not listening: it gets no connections, and nobody else gets the port.
            holder = held.enter_context(_bound(Address(family, (str(at[0]), port)), shared=True))
            port = holder.getsockname()[1]
            addresses.append(Address(family, (str(at[0]), port)))
        yield addresses


def join_port(addresses: list[Address]) -> list[socket.socket]:
    """Return sockets of this process alone for a reserved port. Raises OSError."""
    return [_bound(address, shared=True) for address in addresses]


def _bound(address: Address, *, shared: bool) -> socket.socket:
    bound = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if address.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address.at)
    except BaseException:
        bound.close()
        raise
    return bound
