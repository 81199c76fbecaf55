"""What a controller has that signs tokens: a key pair."""

import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from servery_common.contracts.access import SigningKey


class Signer:
    """Signs tokens that are valid unless ``claims`` say otherwise; None leaves a claim out."""

    def __init__(self, key_id: str = "k1") -> None:
        self._private = Ed25519PrivateKey.generate()
        pem = self._private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.key = SigningKey(key_id=key_id, public_key=pem.decode())

    def token(self, subject: str, **claims: Any) -> str:
        now = int(time.time())
        standard = {"sub": subject, "aud": "servery", "iss": "servery", "iat": now, "exp": now + 3600}
        wanted = {**standard, "scope": "all-apis", **claims}
        payload = {name: value for name, value in wanted.items() if value is not None}
        return jwt.encode(payload, self._private, algorithm="EdDSA", headers={"kid": self.key.key_id})
