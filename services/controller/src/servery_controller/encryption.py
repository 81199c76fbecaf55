"""Encrypts what may not lie readable in the database: secrets of users and signing keys.

AES-256-GCM with a random 96-bit nonce per value (NIST SP 800-38D). Each value is bound to its place (the
context), so that a row copied over another one cannot be opened there.
"""

import base64
import binascii
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
_NONCE_BYTES = 12


class Cipher:
    """Seals and opens values. ``key`` is 32 bytes in Base64; raises ValueError for anything else."""

    def __init__(self, key: str) -> None:
        try:
            raw = base64.b64decode(key, validate=True)
        except binascii.Error:
            raw = b""
        if len(raw) != KEY_BYTES:
            raise ValueError(f"SERVERY_ENCRYPTION_KEY must be {KEY_BYTES} bytes in Base64")
        self._aead = AESGCM(raw)

    def seal(self, plain: bytes, context: str) -> bytes:
        """Return ``plain`` encrypted for one place."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plain, context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """Return what was sealed for this place. Raises ValueError under another key or in another place."""
        try:
            return self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode())
        except InvalidTag:
            raise ValueError("sealed under another encryption key, or for another place") from None
