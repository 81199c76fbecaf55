"""The form of personal access tokens: ``dapi``, 32 random hex digits, 8 hex digits of checksum.

The prefix is the one clients and secret scanners know from Databricks. The checksum (CRC-32 of what comes before
it) tells a token that was cut off or mistyped without asking anyone. It proves nothing: what a token is good for
is known by its SHA-256 alone, which is all that is ever stored.
"""

import hashlib
import re
import secrets
import zlib

PREFIX = "dapi"
_RANDOM_BYTES = 16
_FORM = re.compile(rb"dapi[0-9a-f]{32}[0-9a-f]{8}")


def generate() -> str:
    """Return a new token, with 128 bits of randomness."""
    body = PREFIX + secrets.token_hex(_RANDOM_BYTES)
    return body + _checksum(body.encode())


def is_well_formed(token: bytes) -> bool:
    """Whether the token may have been made by ``generate``. A token an operator set need not be of this form."""
    return _FORM.fullmatch(token) is not None and token[-8:].decode() == _checksum(token[:-8])


def fingerprint(token: bytes) -> str:
    """Return the SHA-256 of a token or secret in hex: what is stored and published in its place.

    A plain hash is enough: nobody can try 2^128 values, as they could try the passwords people choose.
    """
    return hashlib.sha256(token).hexdigest()


def _checksum(body: bytes) -> str:
    return f"{zlib.crc32(body):08x}"
