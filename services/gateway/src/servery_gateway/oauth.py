"""``POST /oidc/v1/token``: a service principal's client id and secret become a short-lived access token.

OAuth 2.0 client credentials (RFC 6749, section 4.4). The gateway reads the form, the controller checks the secret
and signs the token. Errors have the RFC's form, not Databricks': that is what OAuth clients parse.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote_plus

from servery_common.contracts import subjects
from servery_common.contracts.access import IssueToken, TokenIssued
from servery_common.errors import BadRequest, InvalidParameter, ServeryError, Unauthenticated, Unavailable
from servery_common.messaging.port import Bus
from servery_gateway.credentials import basic_pair
from servery_gateway.http import Answer, Header, Receive, json_answer
from servery_gateway.request_body import BodyBudget, RequestBody

MAX_FORM_BYTES = 16 * 1024
READ_TIMEOUT = 10.0
"""Seconds for the form to arrive."""
TIMEOUT = 5.0
"""Seconds the controller may take."""
MAX_UNDER_WAY = 64
"""Questions to the controller at a time. Nobody is authenticated yet, so they may not crowd others out."""
NO_STORE: tuple[Header, ...] = ((b"cache-control", b"no-store"), (b"pragma", b"no-cache"))
CLOSE: Header = (b"connection", b"close")

_SUPPORTED = "grant_type 'client_credentials'"
_AWAY = "The control plane cannot be reached right now. Try again in a moment."
_INVALID_CLIENT = (
    "The client id or secret is wrong, or the secret was deleted or has expired. Send them by HTTP basic "
    "authentication, or as client_id and client_secret in the form."
)


class OAuthError(Exception):
    """A refusal, by its code in RFC 6749 (section 5.2)."""

    def __init__(
        self, status: int, code: str, description: str, *headers: Header, retry_after: int | None = None
    ) -> None:
        super().__init__(description)
        more = headers if retry_after is None else (*headers, (b"retry-after", b"%d" % retry_after))
        self.answer = json_answer({"error": code, "error_description": description}, status)._replace(
            headers=(*NO_STORE, *more)
        )


class ClientCredentials(NamedTuple):
    """What a client asks with."""

    client_id: str
    client_secret: str
    scope: str


class TokenEndpoint:
    """Answers token requests. ``bus`` returns the bus once there is one."""

    def __init__(self, bus: Callable[[], Bus | None], budget: BodyBudget) -> None:
        self._bus = bus
        self._budget = budget
        self._under_way = 0

    async def answer(self, method: str, headers: Mapping[bytes, bytes], receive: Receive) -> Answer:
        """Return the answer. Raises ClientDisconnected."""
        try:
            if method != "POST":
                raise OAuthError(400, "invalid_request", f"{method} is not supported here; use POST.", CLOSE)
            content = await self._read(headers, receive)
            issued = await self._issue(parse(content, headers))
        except OAuthError as error:
            return error.answer
        return json_answer(
            {
                "access_token": issued.access_token,
                "token_type": "Bearer",
                "expires_in": issued.expires_in,
                "scope": issued.scope,
            }
        )._replace(headers=NO_STORE)

    async def _read(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        body = RequestBody(receive, headers, self._budget)
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                return bytes(await body.read(MAX_FORM_BYTES))
        except TimeoutError:
            raise OAuthError(400, "invalid_request", "The form did not arrive in time.", CLOSE) from None
        except Unavailable as error:
            raise _unavailable(error.message, CLOSE) from None
        except BadRequest:
            text = f"The form is longer than {MAX_FORM_BYTES} bytes."
            raise OAuthError(400, "invalid_request", text, CLOSE) from None
        finally:
            body.release()

    async def _issue(self, client: ClientCredentials) -> TokenIssued:
        bus = self._bus()
        if bus is None or not bus.connected or self._under_way >= MAX_UNDER_WAY:
            raise _unavailable(_AWAY)
        self._under_way += 1
        try:
            return await bus.request(
                subjects.controller_issue_token(),
                IssueToken(
                    client_id=client.client_id, client_secret=client.client_secret, scope=client.scope
                ),
                TokenIssued,
                timeout=TIMEOUT,
            )
        except Unauthenticated:
            raise _invalid_client(_INVALID_CLIENT) from None
        except InvalidParameter as error:
            raise OAuthError(400, "invalid_scope", error.message) from None
        except Unavailable as error:
            raise _unavailable(_AWAY, retry_after=error.retry_after or 1) from None
        except ServeryError as error:
            code = "server_error" if error.status >= 500 else "unauthorized_client"
            raise OAuthError(error.status, code, error.message, retry_after=error.retry_after) from None
        finally:
            self._under_way -= 1


def parse(content: bytes, headers: Mapping[bytes, bytes]) -> ClientCredentials:
    """Return what is asked for. Raises OAuthError. Pure."""
    form = _form(content, headers.get(b"content-type", b""))
    grant_type = form.get("grant_type")
    if not grant_type:
        raise OAuthError(400, "invalid_request", f"grant_type is missing; send {_SUPPORTED}.")
    if grant_type != "client_credentials":
        raise OAuthError(
            400,
            "unsupported_grant_type",
            f"grant_type {grant_type[:100]!r} is not supported; use {_SUPPORTED}.",
        )
    by_header = _client_in_header(headers.get(b"authorization"))
    if by_header is not None and "client_secret" in form:
        raise OAuthError(
            400,
            "invalid_request",
            "Send the client's secret in the Authorization header or in the form, not in both.",
        )
    client_id, secret = by_header or (form.get("client_id", ""), form.get("client_secret", ""))
    if not client_id or not secret:
        raise _invalid_client(_INVALID_CLIENT)
    return ClientCredentials(client_id, secret, form.get("scope", ""))


def _form(content: bytes, content_type: bytes) -> dict[str, str]:
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type != b"application/x-www-form-urlencoded":
        raise OAuthError(400, "invalid_request", "Send a form: application/x-www-form-urlencoded.")
    try:
        pairs = parse_qsl(content.decode(), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError:
        raise OAuthError(
            400, "invalid_request", "The body is not a form of at most 20 fields in UTF-8."
        ) from None
    form = dict(pairs)
    if len(form) < len(pairs):
        raise OAuthError(400, "invalid_request", "A field of the form is given twice.")
    return form


def _client_in_header(authorization: bytes | None) -> tuple[str, str] | None:
    """Return client id and secret of a Basic header, each form-encoded in it (RFC 6749, section 2.3.1)."""
    if authorization is None:
        return None
    scheme, _, value = authorization.strip().partition(b" ")
    pair = basic_pair(value) if scheme.lower() == b"basic" else None
    try:
        if pair is None:
            raise ValueError("not basic authentication")
        client_id, secret = (unquote_plus(part.decode(), errors="strict") for part in pair)
    except ValueError:
        raise _invalid_client("The Authorization header is not HTTP basic authentication.") from None
    return client_id, secret


def _invalid_client(description: str) -> OAuthError:
    return OAuthError(401, "invalid_client", description, (b"www-authenticate", b'Basic realm="servery"'))


def _unavailable(description: str, *headers: Header, retry_after: int = 1) -> OAuthError:
    return OAuthError(503, "temporarily_unavailable", description, *headers, retry_after=retry_after)
