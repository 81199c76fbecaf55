"""Who calls: an Authorization header becomes an Identity, in memory.

A personal access token is looked up by its SHA-256 and leads to a principal; a signed one (JWT) says which principal
it stands for. Only about a token nobody told this gateway of is the controller asked, once: it may have been created
a moment ago. What no controller made, as its checksum tells, is not worth a question. Every failure has the same
answer: whether a token is unknown, expired or malformed, or nobody could be asked, is nobody's business.

A model's token is good as long as the endpoint that serves the model is there. What else it may not do, the
controller knows: it is told the scope.
"""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from servery_common import access_tokens
from servery_common.contracts.access import ALL_APIS, FindToken, Identity
from servery_common.errors import Unauthenticated
from servery_gateway import credentials
from servery_gateway.routing_table import Snapshot
from servery_gateway.token_finder import TokenFinder

MESSAGE = (
    "Credential was not sent or was of an unsupported type or is not valid. Send a personal access token or an OAuth "
    "access token as 'Authorization: Bearer <token>', or by HTTP basic authentication with user name 'token'."
)
MAX_CACHED_HEADERS = 4096
FOUND_SECONDS = 2.0
"""How long an answer of the controller is believed. By then the bucket has the token too, or it was revoked."""


class Caller(NamedTuple):
    """Who calls, and what their credential is for."""

    identity: Identity
    scope: str = ALL_APIS


class _Known(NamedTuple):
    caller: Caller
    until: float
    """Epoch seconds; from then on the header is looked at again."""
    endpoint_id: str | None = None
    """The token ends with this endpoint."""


class Authenticator:
    """Remembers headers that were valid, so the hot path does no hashing and checks no signature."""

    def __init__(self, finder: TokenFinder, now: Callable[[], float] = time.time) -> None:
        self._finder = finder
        self._now = now
        self._snapshot = Snapshot()
        self._keys: Mapping[str, Ed25519PublicKey] = {}
        self._by_header: dict[bytes, _Known] = {}

    def update(self, snapshot: Snapshot) -> None:
        """Follow the snapshot: a revoked token ends here."""
        before, self._snapshot = self._snapshot, snapshot
        if before.signing_keys is not snapshot.signing_keys:
            parsed = {key_id: credentials.public_key(key) for key_id, key in snapshot.signing_keys.items()}
            self._keys = {key_id: key for key_id, key in parsed.items() if key is not None}
        elif before.tokens is snapshot.tokens and before.identities is snapshot.identities:
            return
        self._by_header.clear()

    async def authenticate(self, authorization: bytes | None) -> Caller:
        """Return who the header stands for. Raises Unauthenticated. Waits only for an unknown token."""
        if authorization is None:
            raise Unauthenticated(MESSAGE)
        known = self._by_header.get(authorization)
        if known is None or known.until <= self._now():
            known = await self._look_up(authorization)
        if not self._holds(known):
            raise Unauthenticated(MESSAGE)
        return known.caller

    def known(self, authorization: bytes | None) -> Caller | None:
        """Return who the header stands for if that is known and holds; None: ``authenticate`` has to find out."""
        known = None if authorization is None else self._by_header.get(authorization)
        if known is None or known.until <= self._now() or not self._holds(known):
            return None
        return known.caller

    def _holds(self, known: _Known) -> bool:
        return known.endpoint_id is None or self._serves(known.endpoint_id, known.caller.identity)

    async def _look_up(self, authorization: bytes) -> _Known:
        self._by_header.pop(authorization, None)
        token = credentials.token_of(authorization)
        if token is None:
            raise Unauthenticated(MESSAGE)
        digest = access_tokens.fingerprint(token)
        known = self._granted(digest)
        if known is None:
            if credentials.is_signed(token):
                known = self._signed(token)
            elif access_tokens.is_well_formed(token):
                known = await self._found(digest)
        if known is None or known.until <= self._now():
            raise Unauthenticated(MESSAGE)
        if len(self._by_header) >= MAX_CACHED_HEADERS:
            self._by_header.clear()
        self._by_header[authorization] = known
        return known

    def _signed(self, token: bytes) -> _Known | None:
        key = self._keys.get(credentials.key_id_of(token) or "")
        signed = credentials.verify(token, key) if key is not None else None
        if signed is None:
            return None
        identity = self._snapshot.identities.get(signed.principal_id)
        if identity is None:
            return None
        return _Known(Caller(identity, signed.scope), signed.expires_at, signed.endpoint_id)

    def _serves(self, endpoint_id: str, identity: Identity) -> bool:
        route = self._snapshot.routes.get(endpoint_id)
        return route is not None and route.workspace_id == identity.workspace_id

    def _granted(self, digest: str) -> _Known | None:
        grant = self._snapshot.tokens.get(digest)
        identity = self._snapshot.identities.get(grant.principal_id) if grant is not None else None
        if grant is None or identity is None:
            return None
        return _Known(Caller(identity), _seconds(grant.expires_at_ms))

    async def _found(self, digest: str) -> _Known | None:
        found = await self._finder.find(FindToken(token_sha256=digest))
        told = self._granted(digest)
        if told is not None:
            return told  # The news came while we asked; it will be followed by the news of its end.
        if found is None or found.grant is None or found.identity is None:
            return None
        until = min(_seconds(found.grant.expires_at_ms), self._now() + FOUND_SECONDS)
        return _Known(Caller(found.identity), until)


def _seconds(expires_at_ms: int | None) -> float:
    return float("inf") if expires_at_ms is None else expires_at_ms / 1000
