"""Who calls: put into the ASGI scope by the carrier, confirmed by Postgres before any route runs."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request

from servery_common.contracts.access import ALL_APIS, Identity
from servery_common.errors import PermissionDenied
from servery_controller.access.authority import require_supported

IDENTITY = "servery.identity"
"""Where the carrier puts the authenticated caller in the ASGI scope."""
SCOPE = "servery.scope"
"""Where it puts the scope of the caller's credential."""
READING = frozenset({"GET", "HEAD"})

Confirm = Callable[[Identity], Awaitable[Identity]]
"""Returns the caller as they are now. Raises Unauthenticated."""


def caller_of(request: Request) -> Identity:
    """The caller."""
    return request.scope[IDENTITY]


def client_of(request: Request) -> str | None:
    """The address the caller came from, as the gateway sees it; None: not known."""
    return request.client.host if request.client else None


def confirming(confirm: Confirm) -> Callable[[Request], Awaitable[None]]:
    """Return the dependency of the whole application that confirms the caller; it runs before all others."""

    async def confirm_caller(request: Request) -> None:
        request.scope[IDENTITY] = await confirm(request.scope[IDENTITY])

    return confirm_caller


def require_scope(request: Request) -> None:
    """Let a credential that is not for all APIs read only. Raises PermissionDenied.

    Code of a model must not make its creator's rights its own: a token, a grant or an endpoint would outlive it.
    """
    if request.scope[SCOPE] != ALL_APIS and request.method not in READING:
        raise PermissionDenied(
            "A model's token is for reading and for querying endpoints; it cannot change anything. Use the token of a "
            "user or a service principal, for example from a secret in the served entity's environment_vars."
        )


Caller = Annotated[Identity, Depends(caller_of)]
ClientAddress = Annotated[str | None, Depends(client_of)]


def _served(caller: Caller) -> None:
    require_supported(caller)


SERVED_WORKSPACES_ONLY = (Depends(_served),)
"""Dependencies of routers about models: refused when the caller's workspace is in a region that is not served."""
