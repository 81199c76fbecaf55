"""Who calls: an Authorization header becomes an Identity, in memory, without asking anyone.

Accepted are ``Bearer <token>`` and ``Basic`` with user ``token`` and the token as password, as the clients send them.
Every failure has the same answer: whether a token is unknown, expired or malformed is nobody's business.
"""

import base64
import binascii
import hashlib
import time
from collections.abc import Callable

from servery_common.contracts.access import Identity
from servery_common.errors import Unauthenticated
from servery_gateway.routing_table import Snapshot

MESSAGE = (
    "Credential was not sent or was of an unsupported type or is not valid. Send a personal access token as "
    "'Authorization: Bearer <token>', or by HTTP basic authentication with user name 'token'."
)
MAX_CACHED_HEADERS = 4096


class Authenticator:
    """Looks tokens up by their SHA-256. Remembers headers that were valid, so the hot path does no hashing."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._snapshot = Snapshot()
        self._by_header: dict[bytes, tuple[Identity, int | None]] = {}

    def update(self, snapshot: Snapshot) -> None:
        """Follow the snapshot: a revoked token ends here."""
        before, self._snapshot = self._snapshot, snapshot
        if before.tokens is not snapshot.tokens or before.identities is not snapshot.identities:
            self._by_header.clear()

    def authenticate(self, authorization: bytes | None) -> Identity:
        """Return who the header stands for. Raises Unauthenticated."""
        if authorization is None:
            raise Unauthenticated(MESSAGE)
        identity, expires_at_ms = self._by_header.get(authorization) or self._look_up(authorization)
        if expires_at_ms is not None and expires_at_ms <= self._now() * 1000:
            raise Unauthenticated(MESSAGE)
        return identity

    def _look_up(self, authorization: bytes) -> tuple[Identity, int | None]:
        token = token_of(authorization)
        grant = self._snapshot.tokens.get(hashlib.sha256(token).hexdigest()) if token else None
        identity = self._snapshot.identities.get(grant.principal_id) if grant else None
        if grant is None or identity is None:
            raise Unauthenticated(MESSAGE)
        if len(self._by_header) >= MAX_CACHED_HEADERS:
            self._by_header.clear()
        self._by_header[authorization] = identity, grant.expires_at_ms
        return identity, grant.expires_at_ms


def token_of(authorization: bytes) -> bytes | None:
    """Return the token in an Authorization header, or None when there is none in a form we take."""
    scheme, _, value = authorization.strip().partition(b" ")
    value = value.strip()
    match scheme.lower():
        case b"bearer":
            return value or None
        case b"basic":
            try:
                user, _, password = base64.b64decode(value, validate=True).partition(b":")
            except binascii.Error:
                return None
            return password if user == b"token" and password else None
        case _:
            return None
