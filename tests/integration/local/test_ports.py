"""Which ports the embedded mode takes."""

import socket
from pathlib import Path

import pytest

from servery_local import ports

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


@pytest.mark.skipif(not RANGE.exists(), reason="only Linux says which ports it gives to outgoing connections")
def test_a_chosen_port_is_none_that_outgoing_connections_are_given() -> None:
    first, last = map(int, RANGE.read_text().split())
    given = range(first, last + 1)
    if given.start < ports._OURS.stop:
        pytest.skip(f"this machine gives out ports from {first} on")
    assert not {ports.pick() for _ in range(20)} & set(given)


def test_the_preferred_port_is_taken_where_it_is_free_and_allowed() -> None:
    with socket.create_server((ports.LOOPBACK, 0)) as server:
        taken = server.getsockname()[1]
        free = ports.pick()
        assert ports.pick(None, taken, free) == free
        assert ports.pick(taken, free, avoid=frozenset({free})) not in {taken, free}
