"""``/api/2.0/secrets``, as databricks-sdk's ``w.secrets`` sends and parses it: parse, call the use case, present."""

import base64
import binascii
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AfterValidator, Field

from servery_common.errors import InvalidParameter, NotImplementedByServery
from servery_controller.api.body import Body, Text, storable
from servery_controller.api.callers import SERVED_WORKSPACES_ONLY, Caller
from servery_controller.domain.secrets import SecretPermission
from servery_controller.secrets.service import SecretService

BACKEND = "DATABRICKS"
"""What clients call a scope whose secrets the platform itself keeps."""

Asked = Annotated[str, Query(), AfterValidator(storable)]


class CreateScope(Body):
    """A new scope."""

    scope: Text
    initial_manage_principal: Text | None = None
    scope_backend_type: Text | None = None
    backend_azure_keyvault: dict[str, Any] | None = None


class Scope(Body):
    """Names a scope."""

    scope: Text


class Secret(Body):
    """Names a secret."""

    scope: Text
    key: Text


class PutSecret(Secret):
    """A secret and its value: text, or bytes in Base64."""

    string_value: Text | None = Field(default=None, repr=False)
    bytes_value: Text | None = Field(default=None, repr=False)

    def value(self) -> bytes:
        """The bytes to store. Raises InvalidParameter unless there is exactly one value."""
        if (self.string_value is None) == (self.bytes_value is None):
            raise InvalidParameter("Give exactly one of string_value and bytes_value.")
        if self.string_value is not None:
            return self.string_value.encode()
        try:
            return base64.b64decode(self.bytes_value or "", validate=True)
        except (binascii.Error, ValueError):
            raise InvalidParameter("bytes_value is not valid Base64.") from None


class Principal(Body):
    """Names a grant."""

    scope: Text
    principal: Text


class PutAcl(Principal):
    """A grant."""

    permission: SecretPermission


def secrets_router(service: SecretService) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/api/2.0/secrets", tags=["secrets"], dependencies=SERVED_WORKSPACES_ONLY)

    @router.post("/scopes/create")
    async def create_scope(body: CreateScope, caller: Caller) -> dict[str, Any]:
        """Create a secret scope."""
        if body.backend_azure_keyvault is not None or (body.scope_backend_type or BACKEND).upper() != BACKEND:
            raise NotImplementedByServery(
                f"Secret scopes of another backend, such as Azure Key Vault, are not supported: leave "
                f"scope_backend_type out, or give {BACKEND}."
            )
        await service.create_scope(body.scope, body.initial_manage_principal, caller)
        return {}

    @router.post("/scopes/delete")
    async def delete_scope(body: Scope, caller: Caller) -> dict[str, Any]:
        """Delete a secret scope with its secrets."""
        await service.delete_scope(body.scope, caller)
        return {}

    @router.get("/scopes/list")
    async def list_scopes(caller: Caller) -> dict[str, Any]:
        """List the secret scopes the caller may read."""
        return {"scopes": [{"name": name, "backend_type": BACKEND} for name in await service.scopes(caller)]}

    @router.post("/put")
    async def put_secret(body: PutSecret, caller: Caller) -> dict[str, Any]:
        """Store a secret."""
        await service.put(body.scope, body.key, body.value(), caller)
        return {}

    @router.post("/delete")
    async def delete_secret(body: Secret, caller: Caller) -> dict[str, Any]:
        """Delete a secret."""
        await service.delete(body.scope, body.key, caller)
        return {}

    @router.get("/get")
    async def get_secret(scope: Asked, key: Asked, caller: Caller) -> dict[str, Any]:
        """Return a secret's value in Base64."""
        value = await service.get(scope, key, caller)
        return {"key": key, "value": base64.b64encode(value).decode()}

    @router.get("/list")
    async def list_secrets(scope: Asked, caller: Caller) -> dict[str, Any]:
        """List the secrets of a scope, without their values."""
        found = await service.keys(scope, caller)
        return {
            "secrets": [
                {"key": one.key, "last_updated_timestamp": int(one.updated_at.timestamp() * 1000)}
                for one in found
            ]
        }

    @router.post("/acls/put")
    async def put_acl(body: PutAcl, caller: Caller) -> dict[str, Any]:
        """Grant a permission on a scope."""
        await service.put_acl(body.scope, body.principal, body.permission, caller)
        return {}

    @router.post("/acls/delete")
    async def delete_acl(body: Principal, caller: Caller) -> dict[str, Any]:
        """Take a grant back."""
        await service.delete_acl(body.scope, body.principal, caller)
        return {}

    @router.get("/acls/get")
    async def get_acl(scope: Asked, principal: Asked, caller: Caller) -> dict[str, Any]:
        """What is granted to a principal."""
        found, permission = await service.acl(scope, principal, caller)
        return {"principal": found, "permission": permission}

    @router.get("/acls/list")
    async def list_acls(scope: Asked, caller: Caller) -> dict[str, Any]:
        """Everything granted on a scope."""
        found = await service.acls(scope, caller)
        return {
            "items": [{"principal": principal, "permission": permission} for principal, permission in found]
        }

    return router
