"""Short requests see the address that uvicorn's middleware would have put into the ASGI scope."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from servery_gateway import client_addresses
from servery_gateway.client_addresses import ClientAddresses
from servery_gateway.http import Header, client_of

PROXY, CLIENT = "10.0.0.1", "203.0.113.7"


def told(forwarded: str) -> list[Header]:
    return [(b"host", b"x"), (b"x-forwarded-for", forwarded.encode("latin-1"))]


def test_nobodys_header_is_believed_without_trusted_proxies() -> None:
    addresses = ClientAddresses("")
    assert addresses.of((PROXY, 1), told(CLIENT)) == PROXY
    assert addresses.of(None, told(CLIENT)) is None


def test_only_a_trusted_proxys_header_is_believed() -> None:
    addresses = ClientAddresses("10.0.0.0/8,192.0.2.1")
    assert addresses.of((PROXY, 1), told(CLIENT)) == CLIENT
    assert addresses.of(("192.0.2.1", 1), told(f"{CLIENT}:4711")) == CLIENT
    assert addresses.of((CLIENT, 1), told("198.51.100.1")) == CLIENT
    assert addresses.of((PROXY, 1), [(b"host", b"x")]) == PROXY


def test_what_the_client_itself_wrote_before_its_proxy_is_not_believed() -> None:
    addresses = ClientAddresses("10.0.0.0/8")
    assert addresses.of((PROXY, 1), told(f"198.51.100.1, {CLIENT}, 10.0.0.2")) == CLIENT
    twice = [*told("198.51.100.1"), *told(CLIENT)]
    assert addresses.of((PROXY, 1), twice) == CLIENT


def test_what_headers_mean_is_remembered_of_so_many_and_so_long_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_addresses, "MAX_KNOWN", 10)
    addresses = ClientAddresses("10.0.0.0/8")
    for _ in range(2):
        for last in range(50):
            assert addresses.of((PROXY, 1), told(f"203.0.113.{last}")) == f"203.0.113.{last}"
            assert len(addresses._known) <= 10
    addresses = ClientAddresses("10.0.0.0/8")
    assert addresses.of((PROXY, 1), told("x" * 1000)) == "x" * 1000
    assert not addresses._known


HOSTS = st.sampled_from(
    [PROXY, "10.0.0.2", CLIENT, "198.51.100.1:80", "[2001:db8::1]:5", "unknown", "", "::1"]
)


@pytest.mark.parametrize("trusted", ["", PROXY, "10.0.0.0/8, ::1", "*"])
@given(
    peer=st.one_of(st.none(), st.tuples(HOSTS, st.just(1))),
    forwarded=st.lists(st.lists(HOSTS, max_size=3).map(", ".join), max_size=3),
)
def test_it_is_what_uvicorn_says(trusted: str, peer: tuple[str, int] | None, forwarded: list[str]) -> None:
    headers = [header for one in forwarded for header in told(one)]
    scope: dict[str, Any] = {"type": "http", "client": peer, "headers": headers, "scheme": "http"}
    if trusted:
        run(ProxyHeadersMiddleware(nothing, trusted)(scope, None, None))  # pyright: ignore[reportArgumentType]
    addresses = ClientAddresses(trusted)
    for _ in range(2):  # found out, remembered
        assert addresses.of(peer, headers) == client_of(scope)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    pass


def run(coroutine: Any) -> None:
    """To its end; it waits for nothing."""
    with pytest.raises(StopIteration):
        coroutine.send(None)
