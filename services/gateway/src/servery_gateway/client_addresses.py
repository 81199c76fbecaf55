"""Which address a request came from that does not go through uvicorn's middleware for trusted proxies.

The rule is uvicorn's own, asked directly: short requests (``short_requests``) and all others see the same address.
"""

from collections.abc import Iterable
from typing import Any, cast

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from servery_gateway.http import Header

FORWARDED_FOR = b"x-forwarded-for"


class ClientAddresses:
    """``trusted_proxies``: addresses or networks, separated by commas, or ``*``; empty: nobody's header is believed."""

    def __init__(self, trusted_proxies: str) -> None:
        nothing = cast(Any, None)  # It is asked whom it trusts, and never called.
        self._trusted = (
            ProxyHeadersMiddleware(nothing, trusted_proxies).trusted_hosts if trusted_proxies else None
        )

    def of(self, peer: tuple[str, int] | None, headers: Iterable[Header]) -> str | None:
        """Return the client's address; ``peer`` is the other end of the connection. None: not known."""
        host = peer[0] if peer else None
        trusted = self._trusted
        if trusted is None or host not in trusted:
            return host
        forwarded = [value for name, value in headers if name == FORWARDED_FOR]
        if not forwarded:
            return host
        return trusted.get_trusted_client_address(b", ".join(forwarded).decode("latin-1"))[0] or host
