"""Which subnets of a pool are free for networks of replicas. Pure."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network
from itertools import chain, islice

PREFIX_LENGTH = 29
"""Six addresses: the one an engine keeps for the bridge, NATS', the replica's. There is nothing shorter with three."""


def free_subnets(pool: IPv4Network, taken: Iterable[IPv4Network], begin: int) -> Iterator[IPv4Network]:
    """Yield each subnet of the pool that overlaps with none of ``taken``, from the ``begin``-th of them on and round.

    Whoever begins somewhere else seldom wants the same one at the same time.
    """
    size = 2 ** (32 - PREFIX_LENGTH)
    first, count = int(pool.network_address), pool.num_addresses // size
    gaps: list[range] = []
    end = 0
    for low, high in sorted(
        ((int(one.network_address) - first) // size, (int(one.broadcast_address) - first) // size)
        for one in taken
        if one.overlaps(pool)
    ):
        gaps.append(range(end, low))
        end = max(end, high + 1)
    gaps.append(range(end, count))
    free = sum(map(len, gaps))
    skipped = begin % max(free, 1)
    for number in islice(chain(*gaps, *gaps), skipped, skipped + free):
        yield IPv4Network((first + number * size, PREFIX_LENGTH))
