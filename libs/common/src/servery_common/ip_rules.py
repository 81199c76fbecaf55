"""Which addresses may call, by lists of networks. Pure.

Controller and gateways decide by the same rules: who could lock themselves out is told before it happens. An IPv4
address is the same address when it is written as an IPv6 one (``::ffff:10.0.0.1``), which sockets for both kinds do.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_ADDRESS_LENGTH = 64
"""Characters; the longest address with a prefix has 49. What is longer is somebody's nonsense."""

_CIDR = re.compile(r"[0-9A-Fa-f:.]+(/[0-9]{1,3})?")
_MAPPED = IPv6Network("::ffff:0:0/96")


def parse_network(text: str) -> Network:
    """Return the network that an address or a CIDR range stands for. Raises ValueError with what is wrong."""
    problem = (
        f"'{text[:MAX_ADDRESS_LENGTH]}' is not an IPv4 or IPv6 address or a CIDR range such as 203.0.113.0/24"
    )
    if len(text) > MAX_ADDRESS_LENGTH or not _CIDR.fullmatch(text):
        raise ValueError(problem)
    try:
        network = ip_network(text)
    except ValueError:
        raise ValueError(_inside_of_a_range(text) or problem) from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        assert mapped is not None
        return IPv4Network((mapped, network.prefixlen - _MAPPED.prefixlen))
    return network


def _inside_of_a_range(text: str) -> str | None:
    """Return what to say of an address with a prefix it reaches beyond of; None: it is something else.

    Not taken for the range: more than one may be meant, and a mistake here opens or closes a door.
    """
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return None
    return f"'{text}' is an address inside of a range: write {network} for the range"


def parse_address(text: str | None) -> Address | None:
    """Return the address a client is said to have; None when it is not one (a socket file, a proxy's ``unknown``)."""
    if text is None or len(text) > MAX_ADDRESS_LENGTH:
        return None
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class Networks:
    """A set of networks: looking an address up takes one step per length of prefix, however many there are."""

    def __init__(self, networks: Iterable[Network]) -> None:
        prefixes: dict[tuple[int, int], set[int]] = {}
        for network in networks:
            shift = network.max_prefixlen - network.prefixlen
            prefixes.setdefault((network.version, shift), set()).add(int(network.network_address) >> shift)
        self._by_version: dict[int, list[tuple[int, set[int]]]] = {4: [], 6: []}
        for (version, shift), known in prefixes.items():
            self._by_version[version].append((shift, known))

    def __contains__(self, address: Address) -> bool:
        number = int(address)
        return any(number >> shift in known for shift, known in self._by_version[address.version])


class IpRules:
    """What is in ``block`` may not call; of the rest, if there is an ``allow`` at all, only what is in it."""

    def __init__(self, allow: Iterable[str], block: Iterable[str]) -> None:
        """Raises ValueError for what is no network."""
        allowed, blocked = [parse_network(text) for text in allow], [parse_network(text) for text in block]
        self.open = not allowed and not blocked
        """Whether everybody may call."""
        self._allow = Networks(allowed) if allowed else None
        self._block = Networks(blocked)

    def let_in(self, address: Address | None) -> bool:
        """Whether a client may call. One whose address is not known may only where everybody may."""
        if self.open:
            return True
        if address is None or address in self._block:
            return False
        return self._allow is None or address in self._allow
