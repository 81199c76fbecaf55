"""Runs a management call that came over NATS through the API's ASGI application.

The controller has no port: the gateway authenticates the caller and carries the call here.
"""

from typing import Any
from urllib.parse import unquote, urlsplit

from fastapi import FastAPI

from servery_common.contracts.management import HttpAnswer, HttpCall
from servery_common.errors import NotFound
from servery_controller.api.callers import IDENTITY, SCOPE

JSON_API = "/api/2.0/"
"""Below it every body is JSON, whatever the caller calls it: ``curl -d`` without a header says it sends a form."""


class ApiCarrier:
    """Turns an HttpCall into an ASGI request and its response into an HttpAnswer."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def handle(self, call: HttpCall) -> HttpAnswer:
        """Run one call. The application answers its own errors, so this raises none of them."""
        path = unquote(call.path)
        if "\0" in path or "\ufffd" in path:
            raise NotFound(f"No API found for '{call.method} {call.path}'. Check the path.")
        body = call.body.encode()
        sent: list[dict[str, Any]] = []
        received = False

        async def receive() -> dict[str, Any]:
            nonlocal received
            if received:
                return {"type": "http.disconnect"}
            received = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        try:
            await self._app(_scope(call, path), receive, send)
        except Exception:
            # Starlette raises again what its handler has logged and answered, for servers that want to know.
            if not sent:
                raise
        return _answer(sent)


def _scope(call: HttpCall, path: str) -> dict[str, Any]:
    host = urlsplit(call.host)
    try:
        port = host.port
    except ValueError:  # whatever the caller wrote into the Host header
        port = None
    headers = {k.lower().encode("latin-1"): v.encode("latin-1", "replace") for k, v in call.headers.items()}
    if path.startswith(JSON_API):
        headers[b"content-type"] = b"application/json"
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": host.scheme or "http",
        "path": path,
        "raw_path": call.path.encode("latin-1", "replace"),
        "query_string": call.query.encode("latin-1", "replace"),
        "root_path": "",
        "headers": [*headers.items(), (b"host", host.netloc.encode("latin-1", "replace"))],
        "server": (host.hostname or "servery", port or (443 if host.scheme == "https" else 80)),
        "client": (call.client, 0) if call.client else None,
        IDENTITY: call.identity,
        SCOPE: call.scope,
    }


def _answer(sent: list[dict[str, Any]]) -> HttpAnswer:
    start = next(m for m in sent if m["type"] == "http.response.start")
    body = b"".join(m.get("body", b"") for m in sent if m["type"] == "http.response.body")
    headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in start["headers"]}
    headers.pop("content-length", None)  # the gateway sets its own
    return HttpAnswer(status=start["status"], headers=headers, body=body.decode())
