"""OAuth for machines (RFC 6749, section 4.4): secrets of service principals, and tokens in return for them.

Also the tokens with which models act as the creator of their served entity. Both kinds are JWTs that end after an
hour and are stored nowhere: whoever loses a principal's trust is deactivated, and gateways refuse the token at once.
"""

import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import structlog

from servery_common.access_tokens import fingerprint
from servery_common.contracts.access import (
    ALL_APIS,
    MODEL_SCOPE,
    Identity,
    IssueModelToken,
    IssueToken,
    ModelTokenIssued,
    TokenIssued,
)
from servery_common.errors import BadRequest, InvalidParameter, NotFound, Unauthenticated
from servery_common.postgres.pool import Pool
from servery_controller.access import credential_store, directory_store
from servery_controller.access.authority import require_admin
from servery_controller.access.credential_store import OauthSecret
from servery_controller.access.signing import TOKEN_LIFETIME, Signer
from servery_controller.domain.directory import Principal

log = structlog.get_logger(__name__)

SECRET_PREFIX = "dose"
MAX_SECRETS = 5
"""Valid secrets of one service principal. Databricks' documented limit."""
DEFAULT_LIFETIME = timedelta(days=730)
"""Of a secret; also the longest."""

_LIFETIME = re.compile(r"([0-9]{1,9})s")


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A secret and, this one time, its value."""

    value: str
    secret: OauthSecret


class OauthService:
    """Secrets and the tokens they buy. ``host`` is where models reach the gateway."""

    def __init__(self, pool: Pool, signer: Signer, host: str) -> None:
        self._pool = pool
        self._signer = signer
        self._host = host

    async def create_secret(self, caller: Identity, number: int, lifetime: str | None) -> NewSecret:
        """Make a secret for a service principal; ``lifetime`` is written ``3600s``. Raises InvalidParameter."""
        principal = await self._principal(caller, number)
        valid_for = _lifetime(lifetime)
        value = SECRET_PREFIX + secrets.token_hex(16)
        async with self._pool.acquire() as conn, conn.transaction():
            if not await directory_store.lock_principal(conn, principal.id):
                raise _no_such_principal(number)
            if len(await credential_store.find_secrets(conn, principal.id)) >= MAX_SECRETS:
                raise BadRequest(
                    f"The service principal has {MAX_SECRETS} secrets already, the most it may have. Delete one."
                )
            secret = await credential_store.insert_secret(
                conn, uuid4().hex, fingerprint(value.encode()), principal.id, valid_for
            )
        log.info("oauth_secret_created", secret_id=secret.id, principal=principal.name, by=caller.user_name)
        return NewSecret(value, secret)

    async def secrets(self, caller: Identity, number: int) -> list[OauthSecret]:
        """Return the valid secrets of a service principal."""
        principal = await self._principal(caller, number)
        return await credential_store.find_secrets(self._pool, principal.id)

    async def delete_secret(self, caller: Identity, number: int, secret_id: str) -> None:
        """Remove a secret. Tokens it has bought end within the hour. Raises NotFound."""
        principal = await self._principal(caller, number)
        if not await credential_store.delete_secret(self._pool, principal.id, secret_id):
            raise NotFound(f"The service principal has no secret with id '{secret_id[:100]}'.")
        log.info("oauth_secret_deleted", secret_id=secret_id, principal=principal.name, by=caller.user_name)

    async def issue(self, request: IssueToken) -> TokenIssued:
        """Return an access token for a client's id and secret. Raises Unauthenticated, InvalidParameter."""
        # Postgres takes no NUL in a text.
        client_id = request.client_id.replace("\0", "")
        client = await credential_store.find_client(self._pool, client_id)
        given = fingerprint(request.client_secret.encode())
        # Every secret is compared, and in constant time: how long a refusal takes tells nothing.
        matches = [hmac.compare_digest(given, sha256) for sha256 in (client.secrets if client else ())]
        if client is None or not any(matches):
            log.info("oauth_token_refused", client_id=request.client_id[:100])
            raise Unauthenticated("The client id or the client secret is wrong.")
        unknown = [scope for scope in request.scope.split() if scope != ALL_APIS]
        if unknown:
            raise InvalidParameter(f"Unknown scope '{unknown[0][:100]}': ask for '{ALL_APIS}', the only one.")
        token, _ = await self._signer.issue(client.principal_id, {"scope": ALL_APIS})
        log.info("oauth_token_issued", client_id=request.client_id, workspace_id=client.workspace_id)
        return TokenIssued(access_token=token, expires_in=int(TOKEN_LIFETIME.total_seconds()), scope=ALL_APIS)

    async def issue_for_model(self, request: IssueModelToken) -> ModelTokenIssued:
        """Return a token with which a model reads and scores as its served entity's creator. Raises NotFound."""
        row = await self._pool.fetchrow(
            """SELECT e.id, s.creator, p.id AS principal_id
               FROM served_entities s
               JOIN endpoints e ON e.id = s.endpoint_id
               LEFT JOIN principals p ON p.id = s.creator_id AND p.workspace_id = e.workspace_id AND p.active
               WHERE s.id = $1""",
            request.served_entity_id,
        )
        if row is None:
            raise NotFound("The served entity does not exist any more.")
        if row["principal_id"] is None:
            raise NotFound(
                f"The creator of the served entity, '{row['creator']}', was deleted or deactivated: the model can act "
                "as nobody. Let somebody else update the endpoint's config."
            )
        token, ends = await self._signer.issue(
            row["principal_id"], {"scope": MODEL_SCOPE, "endpoint_id": row["id"]}
        )
        log.info("model_token_issued", endpoint_id=row["id"], principal=row["creator"])
        return ModelTokenIssued(token=token, expires_at_ms=int(ends.timestamp() * 1000), host=self._host)

    async def _principal(self, caller: Identity, number: int) -> Principal:
        require_admin(caller)
        principal = await directory_store.get_principal(
            self._pool, caller.workspace_id, "service_principal", number
        )
        if principal is None:
            raise _no_such_principal(number)
        return principal


def _no_such_principal(number: int) -> NotFound:
    return NotFound(f"Service principal with id {number} does not exist.")


def _lifetime(text: str | None) -> timedelta:
    if text is None:
        return DEFAULT_LIFETIME
    seconds = _LIFETIME.fullmatch(text)
    if seconds is None or not 0 < int(seconds[1]) <= DEFAULT_LIFETIME.total_seconds():
        raise InvalidParameter(
            f"lifetime must be a number of seconds such as '3600s', at most {DEFAULT_LIFETIME.total_seconds():.0f}s."
        )
    return timedelta(seconds=int(seconds[1]))
