"""The gateway's door: one ASGI application, dispatching on the path by hand.

Paths work with and without a trailing slash and are never redirected: clients do not follow redirects of a POST.
A wrong method is a 400 and not a 405, because MLflow's client takes a status it does not know for a 500 and
retries. Unknown paths are 404 NOT_FOUND; where a token would be needed, only after it was checked.
"""

from collections.abc import Mapping

import structlog

from servery_common.errors import BadRequest, Internal, NotFound, NotImplementedByServery, ServeryError
from servery_gateway import messages
from servery_gateway.auth import Authenticator
from servery_gateway.exchange import Target
from servery_gateway.http import (
    Answer,
    ClientDisconnected,
    Header,
    Receive,
    Scope,
    Send,
    client_of,
    error_answer,
    expects_continue,
    header_value,
    request_id_of,
    send_answer,
)
from servery_gateway.ip_access import IpAccess
from servery_gateway.management import ManagementHandler
from servery_gateway.oauth import TokenEndpoint
from servery_gateway.paths import scoring_target
from servery_gateway.public_routes import TOKEN_PATH, PublicRoutes
from servery_gateway.scoring import ScoringHandler

OPENAI_PATHS = frozenset(
    f"/serving-endpoints/{api}" for api in ("chat/completions", "completions", "embeddings", "responses")
)

log = structlog.get_logger(__name__)


class GatewayApp:
    """The ASGI application."""

    def __init__(
        self,
        *,
        scoring: ScoringHandler,
        management: ManagementHandler,
        authenticator: Authenticator,
        ip_access: IpAccess,
        tokens: TokenEndpoint,
        public: PublicRoutes,
    ) -> None:
        self._scoring = scoring
        self._management = management
        self._authenticator = authenticator
        self._ip_access = ip_access
        self._tokens = tokens
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Implement ASGI. The server is started without lifespan and websockets."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        path: str = scope["path"]
        try:
            target = scoring_target(path)
            if target is not None and scope["method"] == "POST":
                await self._scoring.handle(target, headers, client_of(scope), receive, send)
            elif path.startswith("/api/2.0/"):
                await self._management.handle(scope, headers, receive, send)
            else:
                await self._other(scope, headers, target, receive, send)
        except Exception:
            log.exception("request_failed", path=path)
            await self._failed(headers, send)

    async def _other(
        self,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        target: Target | None,
        receive: Receive,
        send: Send,
    ) -> None:
        response_headers: list[Header] = [(b"x-request-id", request_id_of(headers))]
        path = scope["path"].rstrip("/")
        try:
            if path == TOKEN_PATH:
                answer = await self._tokens.answer(scope["method"], headers, receive)
            else:
                if expects_continue(headers):
                    response_headers.append((b"connection", b"close"))
                answer = self._public.answer(scope, path, headers)
                if answer is None:
                    answer = await self._unknown(scope, headers, target, response_headers)
        except ServeryError as error:
            answer = error_answer(error)
        except ClientDisconnected:
            return
        await send_answer(send, answer, response_headers)

    async def _unknown(
        self,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        target: Target | None,
        response_headers: list[Header],
    ) -> Answer:
        path, method = scope["path"], scope["method"]
        if path.startswith(("/api/", "/serving-endpoints/")):
            identity, _ = await self._authenticator.authenticate(headers.get(b"authorization"))
            response_headers.append((b"x-databricks-org-id", header_value(identity.workspace_id)))
            self._ip_access.require(identity.workspace_id, client_of(scope))
        if target is not None:
            raise BadRequest(f"{method} is not supported for scoring; use POST.")
        if path.rstrip("/") in OPENAI_PATHS:
            raise NotImplementedByServery(
                "OpenAI's paths are not offered: endpoints are addressed by name. Send the same body to "
                '/serving-endpoints/<endpoint>/invocations, with "stream": true for a streamed answer.'
            )
        raise NotFound(f"No API found for '{method} {path}'.", error_code="NOT_FOUND")

    async def _failed(self, headers: Mapping[bytes, bytes], send: Send) -> None:
        answer = error_answer(Internal(messages.GATEWAY_FAILED))
        try:
            await send_answer(
                send, answer, [(b"x-request-id", request_id_of(headers)), (b"connection", b"close")]
            )
        except RuntimeError:
            # The answer had begun: uvicorn closes the connection, which is all that can be said now.
            log.warning("answer_broken_off")
