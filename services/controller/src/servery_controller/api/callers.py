"""Who calls: put into the ASGI scope by the carrier, confirmed by Postgres before any route runs."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request

from servery_common.contracts.access import Identity
from servery_controller.access.authority import require_supported

IDENTITY = "servery.identity"
"""Where the carrier puts the authenticated caller in the ASGI scope."""

Confirm = Callable[[Identity], Awaitable[Identity]]
"""Returns the caller as they are now. Raises Unauthenticated."""


def caller_of(request: Request) -> Identity:
    """The caller."""
    return request.scope[IDENTITY]


def confirming(confirm: Confirm) -> Callable[[Request], Awaitable[None]]:
    """Return the dependency of the whole application that confirms the caller; it runs before all others."""

    async def confirm_caller(request: Request) -> None:
        request.scope[IDENTITY] = await confirm(request.scope[IDENTITY])

    return confirm_caller


Caller = Annotated[Identity, Depends(caller_of)]


def _served(caller: Caller) -> None:
    require_supported(caller)


SERVED_WORKSPACES_ONLY = (Depends(_served),)
"""Dependencies of routers about models: refused when the caller's workspace is in a region that is not served."""
