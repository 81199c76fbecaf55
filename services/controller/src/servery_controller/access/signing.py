"""Signs JWTs with Ed25519 keys of the installation's own, and replaces the keys in good time.

A new key is published a while before it signs, so that every gateway knows it by then. An old one stays published
until the last token it may have signed has ended. Two deliberate exceptions: the very first key signs at once, and so
does a new one when no older key can be opened (the encryption key was replaced).
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from servery_common.contracts.access import AUDIENCE
from servery_common.postgres.pool import Connection, Pool
from servery_controller.access import credential_store
from servery_controller.access.credential_store import StoredKey
from servery_controller.encryption import Cipher

log = structlog.get_logger(__name__)

TOKEN_LIFETIME = timedelta(hours=1)
LEAD = timedelta(minutes=5)
"""For so long a new key is only published. Also covers clocks of gateways that are slow."""


@dataclass(frozen=True, slots=True)
class KeyPlan:
    """What to do about the signing keys."""

    sign_with: str | None
    """The key that signs; None: there is none, so the new one does."""
    needs_new: bool
    outdated: tuple[str, ...]


def plan_keys(keys: Sequence[tuple[str, datetime, bool]], now: datetime, rotation: timedelta) -> KeyPlan:
    """Decide on keys given as (id, made at, can be opened), newest first."""
    usable = [(key_id, made) for key_id, made, opens in keys if opens]
    settled = [key_id for key_id, made in usable if made + LEAD <= now]
    sign_with = settled[0] if settled else (usable[-1][0] if usable else None)
    needs_new = not usable or usable[0][1] + rotation <= now
    outdated: list[str] = []
    succeeded: datetime | None = None
    for key_id, made, opens in keys:
        # The successor has signed since it was settled; twice the lead, for tokens issued in that very moment.
        if succeeded is not None and succeeded + 2 * LEAD + TOKEN_LIFETIME <= now:
            outdated.append(key_id)
        if opens:
            succeeded = made
    return KeyPlan(sign_with, needs_new, tuple(outdated))


class Signer:
    """Issues JWTs. ``publish`` tells gateways of the public keys and returns when that is done."""

    def __init__(
        self,
        pool: Pool,
        cipher: Cipher,
        publish: Callable[[], Awaitable[None]],
        *,
        issuer: str,
        rotation: timedelta,
    ) -> None:
        self._pool = pool
        self._cipher = cipher
        self._publish = publish
        self._issuer = issuer
        self._rotation = rotation
        self._opened: dict[str, Ed25519PrivateKey] = {}

    async def issue(self, principal_id: str, claims: dict[str, str]) -> tuple[str, datetime]:
        """Return a token for the principal and when it ends. Raises Unavailable."""
        key_id, key = await self._current()
        now = datetime.now(UTC).replace(microsecond=0)
        ends = now + TOKEN_LIFETIME
        standard = {
            "iss": self._issuer,
            "sub": principal_id,
            "aud": AUDIENCE,
            "iat": now,
            "exp": ends,
            "jti": uuid4().hex,
        }
        return jwt.encode({**claims, **standard}, key, algorithm="EdDSA", headers={"kid": key_id}), ends

    async def rotate(self) -> None:
        """Make and remove keys as it is time. Repeating it changes nothing. Raises Unavailable."""
        async with self._pool.acquire() as conn, conn.transaction():
            await credential_store.lock_rotation(conn)
            stored = await credential_store.find_keys(conn)
            plan = self._plan(stored)
            if plan.needs_new:
                await self._make(conn)
            if plan.outdated:
                await credential_store.delete_keys(conn, list(plan.outdated))
                log.info("signing_keys_removed", key_ids=plan.outdated)
        if plan.needs_new or plan.outdated:
            await self._publish()

    async def _current(self) -> tuple[str, Ed25519PrivateKey]:
        stored = await credential_store.find_keys(self._pool)
        plan = self._plan(stored)
        if plan.sign_with is None:
            await self.rotate()
            stored = await credential_store.find_keys(self._pool)
            plan = self._plan(stored)
        opened = self._open(next(key for key in stored if key.id == plan.sign_with))
        assert opened is not None
        assert plan.sign_with is not None
        return plan.sign_with, opened

    def _plan(self, stored: Sequence[StoredKey]) -> KeyPlan:
        keys = [(key.id, key.created_at, self._open(key) is not None) for key in stored]
        return plan_keys(keys, datetime.now(UTC), self._rotation)

    def _open(self, stored: StoredKey) -> Ed25519PrivateKey | None:
        if stored.id not in self._opened:
            try:
                private = self._cipher.open(stored.sealed_private_key, _place(stored.id))
            except ValueError:
                log.warning("signing_key_not_opened", key_id=stored.id)
                return None
            key = load_der_private_key(private, password=None)
            assert isinstance(key, Ed25519PrivateKey)
            self._opened[stored.id] = key
        return self._opened[stored.id]

    async def _make(self, conn: Connection) -> None:
        key = Ed25519PrivateKey.generate()
        key_id = uuid4().hex
        private = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        await credential_store.insert_key(conn, key_id, public, self._cipher.seal(private, _place(key_id)))
        log.info("signing_key_made", key_id=key_id)


def _place(key_id: str) -> str:
    return f"signing-key/{key_id}"
