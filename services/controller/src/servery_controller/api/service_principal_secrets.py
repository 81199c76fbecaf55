"""``/api/2.0/accounts/servicePrincipals/{id}/credentials/secrets``: what service principals log in with.

The path says "accounts" because databricks-sdk's ``service_principal_secrets_proxy`` does; the service principal is
one of the caller's workspace.
"""

from datetime import datetime
from typing import Any

from fastapi import APIRouter

from servery_controller.access.credential_store import OauthSecret
from servery_controller.access.oauth import OauthService
from servery_controller.api.body import Body, Text
from servery_controller.api.callers import Caller
from servery_controller.api.scim import Number


class CreateSecretInput(Body):
    """The body of a creation."""

    lifetime: Text | None = None


def service_principal_secrets_router(oauth: OauthService) -> APIRouter:
    """The routes."""
    router = APIRouter(
        prefix="/api/2.0/accounts/servicePrincipals/{number}/credentials/secrets", tags=["oauth"]
    )

    @router.post("")
    async def create_secret(
        number: Number, caller: Caller, body: CreateSecretInput | None = None
    ) -> dict[str, Any]:
        """Make a secret. Its value is shown this once."""
        made = await oauth.create_secret(caller, number, body.lifetime if body else None)
        return _shown(made.secret) | {"secret": made.value}

    @router.get("")
    async def list_secrets(number: Number, caller: Caller) -> dict[str, Any]:
        """The valid secrets."""
        return {"secrets": [_shown(secret) for secret in await oauth.secrets(caller, number)]}

    @router.delete("/{secret_id}")
    async def delete_secret(number: Number, secret_id: str, caller: Caller) -> dict[str, Any]:
        """Remove a secret."""
        await oauth.delete_secret(caller, number, secret_id)
        return {}

    return router


def _shown(secret: OauthSecret) -> dict[str, Any]:
    return {
        "id": secret.id,
        "secret_hash": secret.sha256,
        "status": "ACTIVE",
        "create_time": _moment(secret.created_at),
        "update_time": _moment(secret.created_at),
        "expire_time": _moment(secret.expires_at),
    }


def _moment(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
