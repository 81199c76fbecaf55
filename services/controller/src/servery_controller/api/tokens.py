"""``/api/2.0/token`` and ``/api/2.0/token-management``: personal access tokens, as databricks-sdk speaks of them."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from servery_controller.access.credential_store import AccessToken
from servery_controller.access.token_service import NewToken, TokenService
from servery_controller.api.body import Body, Text, Whole
from servery_controller.api.callers import Caller

NEVER = -1


class CreateTokenInput(Body):
    """The body of ``token/create``."""

    comment: Text | None = None
    lifetime_seconds: Whole | None = None


class CreateOboTokenInput(CreateTokenInput):
    """The body of ``on-behalf-of/tokens``."""

    application_id: Text


class DeleteTokenInput(Body):
    """The body of ``token/delete``."""

    token_id: Text


def tokens_router(tokens: TokenService) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/api/2.0", tags=["tokens"])

    @router.post("/token/create")
    async def create_token(caller: Caller, body: CreateTokenInput | None = None) -> dict[str, Any]:
        """Make a token for the caller. Its value is shown this once."""
        asked = body or CreateTokenInput()
        return _created(await tokens.create(caller, asked.comment or "", asked.lifetime_seconds), _public)

    @router.get("/token/list")
    async def list_tokens(caller: Caller) -> dict[str, Any]:
        """The caller's valid tokens."""
        return {"token_infos": [_public(token) for token in await tokens.own(caller)]}

    @router.post("/token/delete")
    async def delete_token(body: DeleteTokenInput, caller: Caller) -> dict[str, Any]:
        """Revoke a token of the caller."""
        await tokens.revoke_own(caller, body.token_id)
        return {}

    @router.get("/token-management/tokens")
    async def list_all_tokens(
        caller: Caller,
        created_by_id: Annotated[int | None, Query()] = None,
        created_by_username: Annotated[str | None, Query()] = None,
    ) -> dict[str, Any]:
        """All valid tokens of the workspace, or those that one user made."""
        found = [
            token
            for token in await tokens.all(caller)
            if created_by_id in (None, token.creator_number)
            and created_by_username in (None, token.creator_name)
        ]
        return {"token_infos": [_managed(token) for token in found]}

    @router.get("/token-management/tokens/{token_id}")
    async def get_token(token_id: str, caller: Caller) -> dict[str, Any]:
        """One token of the workspace."""
        return {"token_info": _managed(await tokens.get(caller, token_id))}

    @router.delete("/token-management/tokens/{token_id}")
    async def revoke_token(token_id: str, caller: Caller) -> dict[str, Any]:
        """Revoke any token of the workspace."""
        await tokens.revoke(caller, token_id)
        return {}

    @router.post("/token-management/on-behalf-of/tokens")
    async def create_obo_token(body: CreateOboTokenInput, caller: Caller) -> dict[str, Any]:
        """Make a token for a service principal."""
        made = await tokens.create_on_behalf(
            caller, body.application_id, body.comment or "", body.lifetime_seconds
        )
        return _created(made, _managed)

    return router


def created_token(made: NewToken) -> dict[str, Any]:
    """A token with its value, as ``token/create`` answers."""
    return _created(made, _public)


def _created(made: NewToken, shown: Any) -> dict[str, Any]:
    return {"token_value": made.value, "token_info": shown(made.token)}


def _public(token: AccessToken) -> dict[str, Any]:
    return {
        "token_id": token.id,
        "creation_time": int(token.created_at.timestamp() * 1000),
        "expiry_time": int(token.expires_at.timestamp() * 1000) if token.expires_at else NEVER,
        "comment": token.comment,
    }


def _managed(token: AccessToken) -> dict[str, Any]:
    return _public(token) | {
        "created_by_id": token.creator_number,
        "created_by_username": token.creator_name,
        "owner_id": token.owner_number,
        "workspace_id": int(token.workspace_id),
    }
