"""All SQL about credentials: personal access tokens, OAuth secrets, signing keys."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from servery_common.contracts.access import SigningKey
from servery_common.postgres.advisory_locks import AdvisoryLock, hold
from servery_common.postgres.pool import Connection, Pool


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A personal access token as people may see it."""

    id: str
    comment: str
    created_at: datetime
    expires_at: datetime | None
    workspace_id: str
    owner_number: int
    owner_name: str
    creator_number: int
    creator_name: str


@dataclass(frozen=True, slots=True)
class OauthSecret:
    """A service principal's secret as people may see it."""

    id: str
    sha256: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class OauthClient:
    """A service principal that may ask for OAuth access tokens, with the SHA-256 of its valid secrets."""

    principal_id: str
    workspace_id: str
    secrets: list[str]


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A signing key, its private part encrypted."""

    id: str
    public_key: str
    sealed_private_key: bytes
    created_at: datetime


async def insert_token(
    conn: Connection | Pool,
    token_id: str,
    sha256: str,
    principal_id: str,
    created_by_id: str,
    comment: str,
    lifetime: timedelta | None,
) -> None:
    """Add a token; without a lifetime it does not expire."""
    await conn.execute(
        """INSERT INTO access_tokens (id, sha256, principal_id, created_by_id, comment, expires_at)
           VALUES ($1, $2, $3, $4, $5, now() + $6::interval)""",
        token_id,
        sha256,
        principal_id,
        created_by_id,
        comment,
        lifetime,
    )


async def replace_bootstrap_token(conn: Connection, sha256: str, principal_id: str) -> None:
    """Make this the one token of the settings."""
    await conn.execute("DELETE FROM access_tokens WHERE bootstrap AND sha256 <> $1", sha256)
    await conn.execute(
        """INSERT INTO access_tokens (id, sha256, principal_id, created_by_id, comment, bootstrap)
           VALUES ($1, $1, $2, $2, 'bootstrap', true)
           ON CONFLICT (sha256) DO UPDATE
           SET principal_id = $2, created_by_id = $2, bootstrap = true, expires_at = NULL""",
        sha256,
        principal_id,
    )


async def find_tokens(
    conn: Connection | Pool,
    workspace_id: str,
    *,
    principal_id: str | None = None,
    token_id: str | None = None,
) -> list[AccessToken]:
    """Return the valid tokens of a workspace, oldest first; of one principal or with one id if given."""
    rows = await conn.fetch(
        """SELECT t.id, t.comment, t.created_at, t.expires_at, p.workspace_id,
                  p.number AS owner_number, p.name AS owner_name,
                  coalesce(c.number, p.number) AS creator_number, coalesce(c.name, p.name) AS creator_name
           FROM access_tokens t
           JOIN principals p ON p.id = t.principal_id
           LEFT JOIN principals c ON c.id = t.created_by_id
           WHERE p.workspace_id = $1 AND NOT t.bootstrap AND (t.expires_at IS NULL OR t.expires_at > now())
             AND ($2::text IS NULL OR t.principal_id = $2) AND ($3::text IS NULL OR t.id = $3)
           ORDER BY t.created_at, t.id""",
        workspace_id,
        principal_id,
        token_id,
    )
    return [AccessToken(**row) for row in rows]


async def count_tokens(conn: Connection | Pool, principal_id: str) -> int:
    """How many valid tokens a principal has."""
    count: int | None = await conn.fetchval(
        """SELECT count(*) FROM access_tokens
           WHERE principal_id = $1 AND (expires_at IS NULL OR expires_at > now())""",
        principal_id,
    )
    return count or 0


async def delete_token(
    conn: Connection | Pool, workspace_id: str, token_id: str, *, principal_id: str | None = None
) -> str | None:
    """Remove a token, if it is of this workspace and principal; returns its SHA-256, or None."""
    return await conn.fetchval(
        """DELETE FROM access_tokens t USING principals p
           WHERE t.id = $2 AND NOT t.bootstrap AND p.id = t.principal_id AND p.workspace_id = $1
             AND ($3::text IS NULL OR p.id = $3)
           RETURNING t.sha256""",
        workspace_id,
        token_id,
        principal_id,
    )


async def token_hashes(conn: Connection | Pool, principal_id: str) -> list[str]:
    """The SHA-256 of each of a principal's tokens."""
    rows = await conn.fetch("SELECT sha256 FROM access_tokens WHERE principal_id = $1", principal_id)
    return [row["sha256"] for row in rows]


async def insert_secret(
    conn: Connection | Pool, secret_id: str, sha256: str, principal_id: str, lifetime: timedelta
) -> OauthSecret:
    """Add a secret of a service principal."""
    row = await conn.fetchrow(
        """INSERT INTO oauth_secrets (id, sha256, principal_id, expires_at)
           VALUES ($1, $2, $3, now() + $4::interval) RETURNING id, sha256, created_at, expires_at""",
        secret_id,
        sha256,
        principal_id,
        lifetime,
    )
    assert row is not None
    return OauthSecret(**row)


async def find_secrets(conn: Connection | Pool, principal_id: str) -> list[OauthSecret]:
    """Return the valid secrets of a service principal, oldest first."""
    rows = await conn.fetch(
        """SELECT id, sha256, created_at, expires_at FROM oauth_secrets
           WHERE principal_id = $1 AND expires_at > now() ORDER BY created_at, id""",
        principal_id,
    )
    return [OauthSecret(**row) for row in rows]


async def delete_secret(conn: Connection | Pool, principal_id: str, secret_id: str) -> bool:
    """Remove a secret; returns whether it was there."""
    status = await conn.execute(
        "DELETE FROM oauth_secrets WHERE principal_id = $1 AND id = $2", principal_id, secret_id
    )
    return status != "DELETE 0"


async def find_client(conn: Connection | Pool, client_id: str) -> OauthClient | None:
    """Return the active service principal with this application id or SCIM id."""
    number = int(client_id) if re.fullmatch("[0-9]{1,18}", client_id) else None
    row = await conn.fetchrow(
        """SELECT p.id AS principal_id, p.workspace_id, array(
               SELECT s.sha256 FROM oauth_secrets s WHERE s.principal_id = p.id AND s.expires_at > now()
           ) AS secrets
           FROM principals p
           WHERE p.kind = 'service_principal' AND p.active AND (lower(p.name) = lower($1) OR p.number = $2)""",
        client_id,
        number,
    )
    return OauthClient(**row) if row else None


async def delete_expired(conn: Connection | Pool) -> None:
    """Forget tokens and secrets that are worth nothing any more."""
    await conn.execute("DELETE FROM access_tokens WHERE expires_at <= now()")
    await conn.execute("DELETE FROM oauth_secrets WHERE expires_at <= now()")


async def lock_rotation(conn: Connection) -> None:
    """Until the transaction ends, only one controller decides on signing keys."""
    await hold(conn, AdvisoryLock.SIGNING_KEYS)


async def find_keys(conn: Connection | Pool) -> list[StoredKey]:
    """Return the signing keys, newest first."""
    rows = await conn.fetch(
        "SELECT id, public_key, sealed_private_key, created_at FROM signing_keys ORDER BY created_at DESC, id"
    )
    return [StoredKey(**row) for row in rows]


async def insert_key(conn: Connection, key_id: str, public_key: str, sealed_private_key: bytes) -> None:
    """Add a signing key."""
    await conn.execute(
        "INSERT INTO signing_keys (id, public_key, sealed_private_key) VALUES ($1, $2, $3)",
        key_id,
        public_key,
        sealed_private_key,
    )


async def delete_keys(conn: Connection, key_ids: list[str]) -> None:
    """Remove signing keys: what they signed is refused from now on."""
    await conn.execute("DELETE FROM signing_keys WHERE id = ANY($1::text[])", key_ids)


async def find_public_keys(conn: Connection | Pool) -> dict[str, SigningKey]:
    """Return the public halves by key id."""
    return {key.id: SigningKey(key_id=key.id, public_key=key.public_key) for key in await find_keys(conn)}
