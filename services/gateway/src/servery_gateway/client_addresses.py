"""Which address a request came from that does not go through uvicorn's middleware for trusted proxies.

The rule is uvicorn's own, asked directly: short requests (``short_requests``) and all others see the same address.
"""

from collections.abc import Iterable
from typing import Any, cast

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from servery_gateway.http import Header

FORWARDED_FOR = b"x-forwarded-for"
MAX_KNOWN = 4096
"""Headers whose meaning is remembered. Behind a proxy each request has one, and most clients send many requests."""
MAX_KNOWN_LENGTH = 256
"""Bytes of such a header: what is longer is put together by somebody who wants our memory."""


class ClientAddresses:
    """``trusted_proxies``: addresses or networks, separated by commas, or ``*``; empty: nobody's header is believed."""

    def __init__(self, trusted_proxies: str) -> None:
        nothing = cast(Any, None)  # It is asked whom it trusts, and never called.
        self._trusted = (
            ProxyHeadersMiddleware(nothing, trusted_proxies).trusted_hosts if trusted_proxies else None
        )
        self._known: dict[tuple[str | None, bytes], str | None] = {}

    def of(self, peer: tuple[str, int] | None, headers: Iterable[Header]) -> str | None:
        """Return the client's address; ``peer`` is the other end of the connection. None: not known."""
        host = peer[0] if peer else None
        if self._trusted is None:
            return host
        forwarded = b", ".join([value for name, value in headers if name == FORWARDED_FOR])
        if not forwarded:
            return host
        key = (host, forwarded)
        if key in self._known:
            return self._known[key]
        client = self._told_by(host, forwarded)
        if len(forwarded) <= MAX_KNOWN_LENGTH:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[key] = client
        return client

    def _told_by(self, host: str | None, forwarded: bytes) -> str | None:
        trusted = self._trusted
        if trusted is None or host not in trusted:
            return host
        return trusted.get_trusted_client_address(forwarded.decode("latin-1"))[0] or host
