"""Who calls, and how gateways know: principals, tokens, signing keys.

The controller owns them all. It keeps three KV buckets that every gateway watches, so that a request is
authenticated in memory: ``servery-principals`` (key: principal id), ``servery-tokens`` (key: hex SHA-256 of a
personal access token) and ``servery-signing-keys`` (key: key id). Short-lived tokens (OAuth, a model's own) are
JWTs signed by the controller and never stored: a gateway checks the signature, then looks the principal up.
"""

from functools import cached_property
from typing import Literal

from pydantic import Field

from servery_common.contracts.message import Message

PrincipalKind = Literal["user", "service_principal"]

AUDIENCE = "servery"
"""Whom JWTs are for."""
ALL_APIS = "all-apis"
"""The scope of a credential that may do whatever its principal may do."""
MODEL_SCOPE = "model"
"""The scope of the token a model is given: it reads and scores as its principal, and changes nothing."""


class Identity(Message, type="servery.identity.v2"):
    """A user or a service principal of one workspace. Gone from the bucket: deactivated or deleted."""

    principal_id: str
    """Opaque; also the subject of its JWTs."""
    kind: PrincipalKind = "user"
    user_name: str
    """A user's name, or a service principal's application id."""
    display_name: str = ""
    workspace_id: str
    groups: tuple[str, ...] = ()
    """Names of all groups it belongs to, through other groups too."""
    admin: bool = False
    """Administrator of its workspace (member of the group ``admins``)."""
    operator: bool = False
    """May manage the installation's workspaces."""
    supported: bool = True
    """False: the workspace's region is not served by this installation."""

    @cached_property  # asked for by each scoring request
    def grantees(self) -> frozenset[str]:
        """The names under which it may be granted something: ``user:ann``, ``group:data`` and so on."""
        return frozenset({f"{self.kind}:{self.user_name}", *(f"group:{name}" for name in self.groups)})


class TokenGrant(Message, type="servery.token.v1"):
    """A personal access token that is valid. Gone from the bucket: revoked or expired."""

    token_sha256: str
    principal_id: str
    expires_at_ms: int | None = None
    """Epoch milliseconds; None: does not expire."""


class SigningKey(Message, type="servery.signing_key.v1"):
    """A public key that JWTs are checked with."""

    key_id: str
    public_key: str
    """An Ed25519 public key in PEM."""


class FindToken(Message, type="servery.token.find.v1"):
    """A gateway does not know a token: it may be so new that news of it is still under way."""

    token_sha256: str


class TokenFound(Message, type="servery.token.found.v1"):
    """What is known of it; both None when there is no such valid token."""

    grant: TokenGrant | None = None
    identity: Identity | None = None


class IssueToken(Message, type="servery.oauth.issue.v1"):
    """A client asks for an OAuth access token with its id and secret (RFC 6749, section 4.4)."""

    client_id: str
    client_secret: str = Field(repr=False)
    scope: str = ""


class TokenIssued(Message, type="servery.oauth.issued.v1"):
    """The token. Refusals travel as errors: Unauthenticated for a wrong secret."""

    access_token: str = Field(repr=False)
    expires_in: int
    """Seconds."""
    scope: str


class IssueModelToken(Message, type="servery.model.token.issue.v1"):
    """A worker asks for the token with which a model reads and scores as the creator of its served entity."""

    served_entity_id: str


class ModelTokenIssued(Message, type="servery.model.token.issued.v1"):
    """The token, and the public address of the gateway it is for."""

    token: str = Field(repr=False)
    expires_at_ms: int
    host: str
    """``http://host:port``, or empty when the installation does not say."""
