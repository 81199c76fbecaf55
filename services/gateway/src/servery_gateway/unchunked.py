"""Answers of a length nobody knows yet, to clients that cannot read chunks.

HTTP/1.0 has no chunks: such an answer ends with its connection (RFC 9112, 6.3). uvicorn chunks it whatever the version,
and the client would read the lengths of the chunks as part of the answer.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from servery_gateway.http import Receive, Scope, Send

Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def until_close(cycle: RequestResponseCycle, application: Application) -> Application:
    """Return the application with what it answers left unchunked, for a connection that is not kept."""

    async def unchunked(scope: Scope, receive: Receive, send: Send) -> None:
        lasts = False

        async def unchunked_send(message: MutableMapping[str, Any]) -> None:
            nonlocal lasts
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message["headers"]}
                lasts = not names & {b"content-length", b"transfer-encoding"}
                if lasts:
                    cycle.chunked_encoding = False
            elif lasts:
                # uvicorn compares it with the length of what follows.
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await application(scope, receive, cast(Send, unchunked_send))

    return unchunked
