"""What an Authorization header holds: a token, and of which kind. Pure.

Accepted are ``Bearer <token>`` and ``Basic`` with user ``token`` and the token as password, as the clients send them.
"""

import base64
import binascii
from typing import NamedTuple

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from servery_common.contracts.access import ALL_APIS, AUDIENCE, MODEL_SCOPE, SigningKey

ALGORITHM = "EdDSA"

log = structlog.get_logger(__name__)


class SignedToken(NamedTuple):
    """What a JWT says whose signature was checked."""

    principal_id: str
    expires_at: int
    """Epoch seconds. The reader compares it with its own clock."""
    scope: str
    endpoint_id: str | None
    """Of a model's token: the endpoint that serves the model."""


def token_of(authorization: bytes) -> bytes | None:
    """Return the token in an Authorization header, or None when there is none in a form we take."""
    scheme, _, value = authorization.strip().partition(b" ")
    value = value.strip()
    match scheme.lower():
        case b"bearer":
            return value or None
        case b"basic":
            pair = basic_pair(value)
            return pair[1] if pair is not None and pair[0] == b"token" and pair[1] else None
        case _:
            return None


def basic_pair(value: bytes) -> tuple[bytes, bytes] | None:
    """Return user and password of a Basic header's value (RFC 7617), or None when it is not one."""
    try:
        user, separator, password = base64.b64decode(value.strip(), validate=True).partition(b":")
    except binascii.Error:
        return None
    return (user, password) if separator else None


def is_signed(token: bytes) -> bool:
    """Whether the token may be a JWT: three parts. Those the controller makes at random hold no dot."""
    return token.count(b".") == 2


def public_key(key: SigningKey) -> Ed25519PublicKey | None:
    """Return the key in a form that checks signatures; None, logged, when it is not an Ed25519 key."""
    try:
        parsed = load_pem_public_key(key.public_key.encode())
    except ValueError as error:
        log.error("signing_key_not_read", key_id=key.key_id, error=str(error))
        return None
    if not isinstance(parsed, Ed25519PublicKey):
        log.error("signing_key_not_read", key_id=key.key_id, error="not an Ed25519 key")
        return None
    return parsed


def key_id_of(token: bytes) -> str | None:
    """Return which key a JWT says it was signed with."""
    try:
        return jwt.get_unverified_header(token).get("kid")
    except jwt.InvalidTokenError:
        return None


def verify(token: bytes, key: Ed25519PublicKey) -> SignedToken | None:
    """Return what a JWT says, or None when it was not signed so, or has a scope that means nothing here.

    ``iat`` is not looked at: it says when a token was issued, not from when it is valid, and two machines' clocks
    differ.
    """
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            options={"require": ["sub", "exp", "scope"], "verify_exp": False, "verify_iat": False},
        )
        signed = SignedToken(claims["sub"], int(claims["exp"]), claims["scope"], claims.get("endpoint_id"))
    except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError):
        return None
    understood = signed.scope == ALL_APIS or (signed.scope == MODEL_SCOPE and signed.endpoint_id is not None)
    return signed if understood else None
