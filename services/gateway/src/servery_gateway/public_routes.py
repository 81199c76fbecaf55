"""The paths that need no token: what clients ask before they have one, and whether the gateway lives.

databricks-sdk asks for ``/.well-known/databricks-config`` before every session, mlflow's client before every call, and
both retry a 429 or 503 there for minutes: it is answered from memory, whatever state the gateway is in, and built once
per address under which clients reach this gateway. It names the workspace only while there is one: clients believe it,
and nobody knows yet who asks. Without it they ask once they have a token, and every answer says in a header.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from jwt.algorithms import OKPAlgorithm

from servery_common.contracts.access import ALL_APIS, SigningKey
from servery_common.errors import BadRequest, NotImplementedByServery
from servery_gateway import credentials
from servery_gateway.http import Answer, Header, Scope, json_answer
from servery_gateway.routing_table import Snapshot

MAX_ADDRESSES = 256
"""Answers kept: one per Host header that clients use. Whoever makes up more of them only makes work for themselves."""
CACHE_CONTROL: Header = (b"cache-control", b"public, max-age=300")
KEYS_CACHE_CONTROL: Header = (b"cache-control", b"public, max-age=60")

_HOST = re.compile(rb"[A-Za-z0-9._\-\[\]:]{1,255}")
TOKEN_PATH = "/oidc/v1/token"
_NO_BROWSER = (
    "Signing in with a browser is not supported. Use a personal access token, or a service principal's client id and "
    f"secret (grant_type=client_credentials at {TOKEN_PATH})."
)


class PublicRoutes:
    """Answers them. ``why_not_ready`` returns why no work should be sent here, or None."""

    def __init__(self, why_not_ready: Callable[[], str | None]) -> None:
        self._why_not_ready = why_not_ready
        self._snapshot = Snapshot()
        self._workspace_id: str | None = None
        self._keys = _key_answer({})
        self._configs: dict[tuple[str, bytes], Answer] = {}

    def update(self, snapshot: Snapshot) -> None:
        """Follow the snapshot: which workspaces there are, and the public keys."""
        before, self._snapshot = self._snapshot, snapshot
        if before.signing_keys is not snapshot.signing_keys:
            self._keys = _key_answer(snapshot.signing_keys)
        if before.identities is not snapshot.identities:
            workspaces = {identity.workspace_id for identity in snapshot.identities.values()}
            self._workspace_id = workspaces.pop() if len(workspaces) == 1 else None
            self._configs.clear()

    def answer(self, scope: Scope, path: str, headers: Mapping[bytes, bytes]) -> Answer | None:
        """Return the answer for ``path`` (without a trailing slash), None for a path that is not public.

        Raises BadRequest for a method other than GET and HEAD, NotImplementedByServery for signing in by browser.
        """
        match path:
            case "/.well-known/databricks-config":
                answer = self._config(scope["scheme"], headers.get(b"host", b""))
            case "/oidc/.well-known/oauth-authorization-server" | "/oidc/.well-known/openid-configuration":
                answer = cached(
                    oauth_metadata(_base(scope["scheme"], headers.get(b"host", b""))), CACHE_CONTROL
                )
            case "/oidc/.well-known/jwks.json":
                answer = self._keys
            case "/healthz":
                answer = json_answer({"status": "alive"})
            case "/readyz":
                answer = self._readiness()
            case "/oidc/v1/authorize":
                raise NotImplementedByServery(_NO_BROWSER)
            case _:
                return None
        if scope["method"] not in ("GET", "HEAD"):
            raise BadRequest(f"{scope['method']} is not supported here; use GET.")
        return answer

    def _config(self, scheme: str, host: bytes) -> Answer:
        answer = self._configs.get((scheme, host))
        if answer is None:
            answer = cached(databricks_config(_base(scheme, host), self._workspace_id), CACHE_CONTROL)
            if len(self._configs) >= MAX_ADDRESSES:
                self._configs.clear()
            self._configs[scheme, host] = answer
        return answer

    def _readiness(self) -> Answer:
        reason = self._why_not_ready()
        if reason is None:
            return json_answer({"status": "ready"})
        return json_answer({"status": "not ready", "reason": reason}, 503)


def databricks_config(base: str | None, workspace_id: str | None) -> dict[str, Any]:
    """Return what databricks-sdk wants to know of a host. Without an address of ours: nothing about OAuth."""
    known = {"oidc_endpoint": f"{base}/oidc" if base is not None else None, "workspace_id": workspace_id}
    return {**{name: value for name, value in known.items() if value is not None}, "cloud": "AWS"}


def oauth_metadata(base: str | None) -> dict[str, Any]:
    """Return the authorization server's metadata (RFC 8414). Raises BadRequest without an address to name."""
    if base is None:
        raise BadRequest("The Host header is missing or is not a host name.")
    return {
        "issuer": f"{base}/oidc",
        "authorization_endpoint": f"{base}/oidc/v1/authorize",
        "token_endpoint": f"{base}{TOKEN_PATH}",
        "jwks_uri": f"{base}/oidc/.well-known/jwks.json",
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
        "scopes_supported": [ALL_APIS],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
    }


def key_set(keys: Mapping[str, SigningKey]) -> dict[str, Any]:
    """Return the public keys as a JSON Web Key Set (RFC 7517)."""
    parsed = {key_id: credentials.public_key(key) for key_id, key in keys.items()}
    return {
        "keys": [
            {
                **OKPAlgorithm.to_jwk(key, as_dict=True),
                "kid": key_id,
                "alg": credentials.ALGORITHM,
                "use": "sig",
            }
            for key_id, key in parsed.items()
            if key is not None
        ]
    }


def _key_answer(keys: Mapping[str, SigningKey]) -> Answer:
    return cached(key_set(keys), KEYS_CACHE_CONTROL)


def cached(content: Mapping[str, Any], cache_control: Header) -> Answer:
    """Return a JSON answer that caches may keep."""
    return json_answer(content)._replace(headers=(cache_control,))


def _base(scheme: str, host: bytes) -> str | None:
    """Return the address the client used, or None when its Host header is not one."""
    return f"{scheme}://{host.decode()}" if _HOST.fullmatch(host) else None
