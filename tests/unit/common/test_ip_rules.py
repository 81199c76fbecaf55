import contextlib
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servery_common.ip_rules import IpRules, Networks, parse_address, parse_network


def networks(version: int) -> st.SearchStrategy[str]:
    """Ranges in the way they are written, near each other, so that addresses fall in some of them."""
    bits = 32 if version == 4 else 128
    near = st.integers(0, 2**10 - 1).map(lambda n: (0x0A000000 << (bits - 32)) | (n << (bits - 24)) | n)

    def written(address: int, prefix: int) -> str:
        return str((IPv4Network if version == 4 else IPv6Network)((address, prefix), strict=False))

    return st.builds(written, near, st.integers(0, bits))


def addresses(version: int) -> st.SearchStrategy[str]:
    return networks(version).map(lambda text: str(ip_network(text)[0]))


ANY_NETWORKS = st.lists(st.one_of(networks(4), networks(6)), max_size=8)
ANY_ADDRESS = st.one_of(addresses(4), addresses(6), st.ip_addresses().map(str))


@given(ANY_NETWORKS, ANY_ADDRESS)
def test_an_address_is_in_the_set_exactly_if_it_is_in_one_of_the_networks(
    texts: list[str], text: str
) -> None:
    address = ip_address(text)
    if parse_address(text) != address:
        return  # An IPv4 address in disguise.
    parsed = [ip_network(one) for one in texts]
    assert (address in Networks(parsed)) == any(address in one for one in parsed)


@given(ANY_NETWORKS, ANY_NETWORKS, ANY_ADDRESS)
def test_block_wins_then_allow_decides_if_there_is_one(allow: list[str], block: list[str], text: str) -> None:
    address = parse_address(text)
    assert address is not None

    def holds(texts: list[str]) -> bool:
        return any(address in parse_network(one) for one in texts)

    expected = not holds(block) and (not allow or holds(allow))
    assert IpRules(allow, block).let_in(address) == expected


@given(ANY_NETWORKS, addresses(4))
def test_an_ipv4_address_is_the_same_one_inside_of_ipv6(texts: list[str], text: str) -> None:
    for rules in (IpRules(texts, ()), IpRules((), texts)):
        assert rules.let_in(parse_address(f"::ffff:{text}")) == rules.let_in(parse_address(text))


@given(st.one_of(networks(4), networks(6)))
def test_what_was_parsed_means_the_same_when_it_is_written_and_parsed_again(text: str) -> None:
    network = parse_network(text)
    assert parse_network(str(network)) == network


@given(st.text(max_size=80))
def test_nothing_that_is_written_breaks_the_reader(text: str) -> None:
    parse_address(text)
    with contextlib.suppress(ValueError):
        parse_network(text)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("203.0.113.7", "203.0.113.7/32"),
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:DB8::1", "2001:db8::1/128"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::ffff:10.0.0.1", "10.0.0.1/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::/0", "::/0"),
    ],
)
def test_addresses_and_ranges_of_both_kinds(text: str, network: str) -> None:
    assert str(parse_network(text)) == network


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "10.0.0", "10.0.0.256", "010.0.0.1", "10.0.0.1 ", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/255.0.0.0",
        "10.0.0.0/0.0.0.255", "10.0.0.0/-1", "10.0.0.0/8/8", "fe80::1%eth0", "2001:db8::/129", ":::", "example.com",
        "10.0.0.1-10.0.0.9", "*", "\u0661.1.1.1", "1" * 5000, "10.0.0.0/\u0668", "10.0.0.1\n",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an IPv4 or IPv6 address or a CIDR range"):
        parse_network(text)


def test_an_address_inside_of_a_range_is_refused_with_the_range_that_may_be_meant() -> None:
    with pytest.raises(ValueError, match=r"write 10\.0\.0\.0/8 for the range"):
        parse_network("10.1.2.3/8")


@pytest.mark.parametrize(
    "text", [None, "", "unknown", "unix:", "testclient", "1.2.3.4, 5.6.7.8", "x" * 100_000]
)
def test_what_is_no_address_may_call_only_where_everybody_may(text: str | None) -> None:
    address = parse_address(text)
    assert address is None
    assert IpRules((), ()).let_in(address)
    assert not IpRules((), ("203.0.113.0/24",)).let_in(address)
    assert not IpRules(("0.0.0.0/0", "::/0"), ()).let_in(address)


def test_the_zone_of_a_link_local_address_says_nothing_about_it() -> None:
    assert IpRules(("fe80::/10",), ()).let_in(parse_address("fe80::1%eth0"))
