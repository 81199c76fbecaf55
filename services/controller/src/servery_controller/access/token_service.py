"""The use cases of personal access tokens. A token is shown once; only its SHA-256 is kept."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import structlog

from servery_common import access_tokens
from servery_common.contracts.access import FindToken, Identity, TokenFound
from servery_common.errors import BadRequest, InvalidParameter, NotFound
from servery_common.postgres.pool import Pool
from servery_controller.access import credential_store, directory_store, identity_store
from servery_controller.access.authority import require_admin
from servery_controller.access.credential_store import AccessToken
from servery_controller.access.identity_store import Identities
from servery_controller.access.publisher import AccessPublisher

log = structlog.get_logger(__name__)

MAX_TOKENS = 600
"""Valid tokens of one principal. Databricks' documented limit."""
MAX_LIFETIME = timedelta(days=3650)
MAX_COMMENT_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token and, this one time, its value."""

    value: str
    token: AccessToken


class TokenService:
    """Everybody manages their own tokens; administrators those of their workspace."""

    def __init__(self, pool: Pool, publisher: AccessPublisher, identities: Identities) -> None:
        self._pool = pool
        self._publisher = publisher
        self._identities = identities

    async def create(self, caller: Identity, comment: str, lifetime_seconds: int | None) -> NewToken:
        """Make a token for the caller. Raises InvalidParameter."""
        return await self._create(caller, caller.principal_id, comment, lifetime_seconds)

    async def create_on_behalf(
        self, caller: Identity, application_id: str, comment: str, lifetime_seconds: int | None
    ) -> NewToken:
        """Make a token for a service principal. Raises NotFound, InvalidParameter."""
        require_admin(caller)
        owner = await directory_store.find_principal(self._pool, caller.workspace_id, application_id)
        if owner is None or owner.kind != "service_principal":
            raise NotFound(f"No service principal has the application id '{application_id}'.")
        return await self._create(caller, owner.id, comment, lifetime_seconds)

    async def create_for_user(self, caller: Identity, workspace_id: str, principal_id: str) -> NewToken:
        """Make the first token of a new workspace's administrator; the caller was checked before."""
        return await self._insert(caller, workspace_id, principal_id, "first token of the workspace", None)

    async def own(self, caller: Identity) -> list[AccessToken]:
        """Return the caller's valid tokens."""
        return await credential_store.find_tokens(
            self._pool, caller.workspace_id, principal_id=caller.principal_id
        )

    async def all(self, caller: Identity) -> list[AccessToken]:
        """Return all valid tokens of the workspace."""
        require_admin(caller)
        return await credential_store.find_tokens(self._pool, caller.workspace_id)

    async def get(self, caller: Identity, token_id: str) -> AccessToken:
        """Return one token of the workspace. Raises NotFound."""
        require_admin(caller)
        found = await credential_store.find_tokens(self._pool, caller.workspace_id, token_id=token_id)
        if not found:
            raise _no_such_token(token_id)
        return found[0]

    async def revoke_own(self, caller: Identity, token_id: str) -> None:
        """Revoke a token of the caller; it is refused from now on. Raises NotFound."""
        await self._revoke(caller, token_id, caller.principal_id)

    async def revoke(self, caller: Identity, token_id: str) -> None:
        """Revoke any token of the workspace. Raises NotFound."""
        require_admin(caller)
        await self._revoke(caller, token_id, None)

    async def find(self, request: FindToken) -> TokenFound:
        """Answer a gateway that does not know a token."""
        grants = await identity_store.find_grants(self._pool, sha256=request.token_sha256)
        grant = grants.get(request.token_sha256)
        identity = await self._identities.find(self._pool, grant.principal_id) if grant else None
        if grant is None or identity is None:
            return TokenFound()
        return TokenFound(grant=grant, identity=identity)

    async def _create(
        self, caller: Identity, principal_id: str, comment: str, lifetime_seconds: int | None
    ) -> NewToken:
        if len(comment) > MAX_COMMENT_LENGTH or "\0" in comment:
            raise InvalidParameter(f"The comment may have at most {MAX_COMMENT_LENGTH} printable characters.")
        if lifetime_seconds is not None and not 0 < lifetime_seconds <= MAX_LIFETIME.total_seconds():
            raise InvalidParameter(
                f"lifetime_seconds must be between 1 and {MAX_LIFETIME.total_seconds():.0f}; "
                "leave it out for a token that does not expire."
            )
        lifetime = timedelta(seconds=lifetime_seconds) if lifetime_seconds is not None else None
        return await self._insert(caller, caller.workspace_id, principal_id, comment, lifetime)

    async def _insert(
        self,
        caller: Identity,
        workspace_id: str,
        principal_id: str,
        comment: str,
        lifetime: timedelta | None,
    ) -> NewToken:
        value, token_id = access_tokens.generate(), uuid4().hex
        sha256 = access_tokens.fingerprint(value.encode())
        async with self._pool.acquire() as conn, conn.transaction():
            if not await directory_store.lock_principal(conn, principal_id):
                raise NotFound(
                    "The user or service principal that the token is for was deleted a moment ago."
                )
            if await credential_store.count_tokens(conn, principal_id) >= MAX_TOKENS:
                raise BadRequest(
                    f"There are {MAX_TOKENS} valid tokens already, the most there may be. Revoke some."
                )
            await credential_store.insert_token(
                conn, token_id, sha256, principal_id, caller.principal_id, comment, lifetime
            )
        await self._publisher.token_added(sha256)
        [token] = await credential_store.find_tokens(self._pool, workspace_id, token_id=token_id)
        log.info("token_created", token_id=token_id, principal=token.owner_name, by=caller.user_name)
        return NewToken(value, token)

    async def _revoke(self, caller: Identity, token_id: str, principal_id: str | None) -> None:
        sha256 = await credential_store.delete_token(
            self._pool, caller.workspace_id, token_id, principal_id=principal_id
        )
        if sha256 is None:
            raise _no_such_token(token_id)
        await self._publisher.token_revoked(sha256)
        log.info("token_revoked", token_id=token_id, by=caller.user_name)


def _no_such_token(token_id: str) -> NotFound:
    return NotFound(f"Token with id '{token_id[:100]}' does not exist.")
