"""Every error of the management API as ``{"error_code", "message"}`` with the matching HTTP status.

FastAPI's own ``{"detail": …}`` is never answered: databricks-sdk takes it for a SCIM error.
"""

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from servery_common.errors import Internal, InvalidParameter, NotFound, ServeryError, Unavailable
from servery_common.postgres.pool import OUTAGE

log = structlog.get_logger()


def install_error_handlers(app: FastAPI) -> None:
    """Override all of FastAPI's error answers."""
    app.add_exception_handler(ServeryError, _servery_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    for unreachable in OUTAGE:
        app.add_exception_handler(unreachable, _database_error)
    app.add_exception_handler(Exception, _unexpected_error)


def error_response(error: ServeryError) -> JSONResponse:
    """Return the answer for an error."""
    headers = {"retry-after": str(error.retry_after)} if error.retry_after is not None else {}
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


async def _servery_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServeryError)
    return error_response(error)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return error_response(
            InvalidParameter(f"The request body is not valid JSON: {first['ctx']['error']}.")
        )
    place = _place(first["loc"])
    return error_response(InvalidParameter(f"{place}: {first['msg']}." if place else f"{first['msg']}."))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code in (404, 405):
        return error_response(
            NotFound(
                f"No API found for '{request.method} {request.url.path}'. Check the path and the method."
            )
        )
    return error_response(InvalidParameter(str(error.detail)))


async def _database_error(request: Request, error: Exception) -> JSONResponse:
    log.warning("database_unavailable", error=repr(error), path=request.url.path)
    return error_response(Unavailable("The database cannot be reached right now. Try again.", retry_after=1))


async def _unexpected_error(request: Request, error: Exception) -> JSONResponse:
    log.error("request_failed", exc_info=error, path=request.url.path)
    return error_response(Internal("An internal error occurred. The controller's log has the details."))


def _place(location: tuple[int | str, ...]) -> str:
    """Write ``("body", "config", "served_entities", 0, "name")`` as ``config.served_entities[0].name``."""
    place = ""
    for part in location[1:] if location and location[0] in ("body", "query", "path") else location:
        place += f"[{part}]" if isinstance(part, int) else f".{part}"
    return place.removeprefix(".")
