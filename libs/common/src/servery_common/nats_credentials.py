"""Credentials for NATS in operator mode: signed tokens (JWT) that say who somebody is and what they may do.

A server knows one operator's public key. The operator signs accounts, an account's key signs users, and the server
believes what is signed so: users need not be known to it. Their permissions and their expiry are in the token. Formats:
https://docs.nats.io/running-a-nats-service/configuration/securing_nats/jwt and the NATS architecture record ADR-14.
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, cast

import nkeys

from servery_common.contracts.permissions import COMPUTE_PLANE, Permissions

ANSWER_WITHIN = timedelta(minutes=15)
"""How long after a message its reply subject may be used: longer than any call waits."""
_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
_NO_LIMITS = {"subs": -1, "data": -1, "payload": -1}
_STORAGE = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}

ConnectsAs = Literal["STANDARD", "LEAFNODE"]
"""A client, or another server: whoever has the credentials of one cannot come as the other."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A public key, which names its holder, and the seed that signs."""

    public: str
    seed: str

    @classmethod
    def make(cls, kind: int) -> "KeyPair":
        """Make a new one; ``kind`` is one of nkeys' ``PREFIX_BYTE_…``."""
        return cls.of(nkeys.encode_seed(os.urandom(32), kind).decode())

    @classmethod
    def of(cls, seed: str) -> "KeyPair":
        """Return the pair of a seed."""
        public = cast(Any, nkeys.from_seed(bytearray(seed.encode()))).public_key  # bytes, whatever nkeys says
        return cls(public.decode(), seed)


@dataclass(frozen=True, slots=True)
class Authority:
    """The keys an installation's credentials are made with. Whoever has the account's seed may make any user."""

    operator: KeyPair
    account: KeyPair
    system: KeyPair
    """The account that may ask servers how they are, and tell them to read their configuration again."""

    @classmethod
    def make(cls) -> "Authority":
        """Make all keys."""
        return cls(
            KeyPair.make(nkeys.PREFIX_BYTE_OPERATOR),
            KeyPair.make(nkeys.PREFIX_BYTE_ACCOUNT),
            KeyPair.make(nkeys.PREFIX_BYTE_ACCOUNT),
        )

    def server_config(self, now: datetime, compute_plane: KeyPair | None = None) -> str:
        """Return the part of a server's configuration that makes it believe this authority and nobody else.

        With ``compute_plane``, the account of a compute plane in another network, the server knows that, too, and
        lets pass between the two what ``permissions.COMPUTE_PLANE`` says: whatever is sent over there, it is decided
        here.
        """
        if compute_plane is None:
            return self._believing([self._account(self.account, "servery", _STORAGE, now)], now)
        ours, theirs = self.account.public, compute_plane.public
        passage = COMPUTE_PLANE
        own = self._account(
            self.account,
            "servery",
            _STORAGE,
            now,
            exports=[
                *(_export("stream", subject) for subject in passage.inward),
                *(_export("service", subject) for subject in passage.asked),
            ],
            imports=[
                *(_import("service", subject, theirs) for subject in passage.orders),
                *(_import("stream", subject, theirs) for subject in passage.outward),
            ],
        )
        other = self._account(
            compute_plane,
            "compute-plane",
            {},
            now,
            exports=[
                *(_export("service", subject) for subject in passage.orders),
                *(_export("stream", subject) for subject in passage.outward),
            ],
            imports=[
                *(_import("stream", subject, ours) for subject in passage.inward),
                *(_import("service", subject, ours) for subject in passage.asked),
            ],
        )
        return self._believing([own, other], now)

    def compute_plane_config(self, compute_plane: KeyPair, now: datetime) -> str:
        """Return the same part for the compute plane's own server, which knows no other account than its own."""
        return self._believing([self._account(compute_plane, "compute-plane", {}, now)], now)

    def _believing(self, accounts: Iterable[tuple[str, str]], now: datetime) -> str:
        operator = _sign(
            self.operator,
            {
                "sub": self.operator.public,
                "name": "servery",
                "nats": {"type": "operator", "version": 2, "system_account": self.system.public},
            },
            now,
        )
        known = [*accounts, self._account(self.system, "system", {}, now)]
        return (
            f"operator: {operator}\n"
            f"system_account: {self.system.public}\n"
            "resolver: MEMORY\n"
            "resolver_preload: {\n" + "".join(f"  {public}: {token}\n" for public, token in known) + "}\n"
        )

    def _account(
        self,
        account: KeyPair,
        name: str,
        storage: Mapping[str, int],
        now: datetime,
        *,
        exports: Sequence[Mapping[str, Any]] = (),
        imports: Sequence[Mapping[str, Any]] = (),
    ) -> tuple[str, str]:
        limits = {"imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
        claims = {
            "sub": account.public,
            "name": name,
            "nats": {
                "type": "account",
                "version": 2,
                "limits": {**_NO_LIMITS, **limits, **storage},
                **({"exports": exports} if exports else {}),
                **({"imports": imports} if imports else {}),
            },
        }
        return account.public, _sign(self.operator, claims, now)


def _export(kind: Literal["stream", "service"], subject: str) -> dict[str, Any]:
    export: dict[str, Any] = {"name": subject, "subject": subject, "type": kind}
    if kind == "service":  # an answer may come in parts
        export |= {"response_type": "Stream", "response_threshold": _nanoseconds(ANSWER_WITHIN)}
    return export


def _import(kind: Literal["stream", "service"], subject: str, account: str) -> dict[str, Any]:
    return {"name": subject, "subject": subject, "type": kind, "account": account}


def user_token(
    account: KeyPair,
    user: str,
    name: str,
    rights: Permissions | None,
    now: datetime,
    lifetime: timedelta | None,
    connects_as: ConnectsAs = "STANDARD",
) -> str:
    """Return the token of a user with this public key; without ``rights`` it may do all its account may."""
    nats: dict[str, Any] = {
        "type": "user",
        "version": 2,
        **_NO_LIMITS,
        "allowed_connection_types": [connects_as],
    }
    if rights is not None:
        nats["pub"] = {"allow": list(rights.publish)} if rights.publish else {"deny": [">"]}
        nats["sub"] = {"allow": list(rights.subscribe)}
        if rights.answers:
            nats["resp"] = {"max": rights.answers, "ttl": _nanoseconds(ANSWER_WITHIN)}
    claims: dict[str, Any] = {"sub": user, "name": name, "nats": nats}
    if lifetime is not None:
        claims["exp"] = int((now + lifetime).timestamp())
    return _sign(account, claims, now)


def make_user(
    account: KeyPair,
    name: str,
    rights: Permissions | None,
    now: datetime,
    lifetime: timedelta | None = None,
    connects_as: ConnectsAs = "STANDARD",
) -> str:
    """Return the credentials of a new user in the format clients read (a ``.creds`` file)."""
    user = make_user_key()
    token = user_token(account, user.public, name, rights, now, lifetime, connects_as)
    return creds_file(token, user.seed)


def make_user_key() -> KeyPair:
    """Make the keys of a new user, who needs a token for the public one."""
    return KeyPair.make(nkeys.PREFIX_BYTE_USER)


def is_user_key(public: str) -> bool:
    """Whether this is the public key of a user, and not of an account or an operator."""
    try:
        decoded = base64.b32decode(public + "=" * (-len(public) % 8))
    except ValueError:
        return False
    # Prefix, key, checksum.
    intact = len(decoded) == 35 and bytes(nkeys.crc16_checksum(decoded[:-2])) == decoded[-2:]
    return intact and decoded[0] == nkeys.PREFIX_BYTE_USER


def creds_file(token: str, seed: str) -> str:
    """Return what a ``.creds`` file holds."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


@dataclass(frozen=True, slots=True)
class Lifetime:
    """From when until when a token is good, in epoch seconds."""

    begins: float
    ends: float

    @property
    def seconds(self) -> float:
        """How long it is good altogether."""
        return self.ends - self.begins


def lifetime_of(creds: str) -> Lifetime | None:
    """Return the lifetime of the token in a ``.creds`` file; None: it has no end. Raises ValueError."""
    try:
        body = creds.split("-----\n", 1)[1].split("\n------END", 1)[0].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return Lifetime(float(claims["iat"]), float(claims["exp"])) if "exp" in claims else None
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a .creds file of NATS: {error!r}") from error


def _sign(issuer: KeyPair, claims: Mapping[str, Any], now: datetime) -> str:
    body = {"iat": int(now.timestamp()), "iss": issuer.public, **claims}
    digest = hashlib.new("sha512_256", _json(body)).digest()
    body["jti"] = base64.b32encode(digest).decode().rstrip("=")
    signed = f"{_base64(_json(_HEADER))}.{_base64(_json(body))}"
    key = nkeys.from_seed(bytearray(issuer.seed.encode()))
    return f"{signed}.{_base64(key.sign(signed.encode()))}"


def _nanoseconds(time: timedelta) -> int:
    return int(time.total_seconds() * 1e9)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
