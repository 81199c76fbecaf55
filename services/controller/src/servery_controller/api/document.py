"""``/api/2.0/servery/openapi.json``: the management API, described by the routes themselves.

FastAPI writes the operations and the request bodies. Added here is what it cannot know: every error is
``{"error_code", "message"}`` with the status its code stands for (never FastAPI's 422), what names in paths look
like, and how callers prove who they are. Not to be mixed up with an endpoint's own document
(``/{name}/openapi``), which describes a model.
"""

from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse

from servery_common.errors import HTTP_STATUS
from servery_controller.api.body import ENDPOINT_NAME
from servery_controller.domain.ip_access import LockedOut
from servery_controller.domain.request import MAX_NAME_LENGTH

PATH = "/api/2.0/servery/openapi.json"

DESCRIPTION = (
    "The management API of Servery, wire-compatible with Databricks Model Serving. Answers may hold more fields than "
    "are named here; clients ignore what they do not know."
)

STATUSES = {
    400: "The request is not understood, or a value in it is not allowed; the message names it.",
    401: "No credential was sent, or not a valid one.",
    403: "The caller is known and may not do this.",
    404: "There is no such resource, or none the caller may see.",
    409: "Somebody else is changing the resource, or it exists already.",
    429: "The caller asks too often; Retry-After says when to try again.",
    500: "A fault of Servery.",
    501: "Part of the Databricks API that Servery does not offer.",
    503: "Something needed does not answer right now; Retry-After says when to try again.",
}
"""The statuses of errors any operation may answer with, and what they say."""

SERVED_NAME = {"minLength": 1, "maxLength": MAX_NAME_LENGTH, "pattern": "^[A-Za-z0-9_.-]+$"}
IDENTIFIER = {"minLength": 1, "maxLength": 64, "pattern": "^[A-Za-z0-9_-]+$"}

_METHODS = ("get", "put", "post", "delete", "patch")


def add_document(app: FastAPI) -> None:
    """Serve the document of all routes the application has, whenever they were added."""

    @cache
    def document() -> dict[str, Any]:
        return describe(app)

    @app.get(PATH, tags=["servery"])
    async def get_api_document() -> JSONResponse:
        """This document."""
        return JSONResponse(document())


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the application."""
    document = get_openapi(
        title=app.title,
        version=version("servery-controller"),
        description=DESCRIPTION,
        routes=app.routes,
        servers=[{"url": "/", "description": "The gateway this document was read from"}],
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Error"] = _error_schema()
    components["responses"] = {_response_name(status): _error_response(status) for status in STATUSES}
    components["securitySchemes"] = {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "A personal access token, or an OAuth access token of `/oidc/v1/token`.",
        },
        "basic": {
            "type": "http",
            "scheme": "basic",
            "description": "User name `token`, a personal access token as the password: `curl -u token:$TOKEN`.",
        },
    }
    document["security"] = [{"token": []}, {"basic": []}]
    for path, operation in _operations(document):
        operation["responses"].pop("422", None)
        for status in STATUSES:
            operation["responses"][str(status)] = {"$ref": f"#/components/responses/{_response_name(status)}"}
        _tidy_success(operation)
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path":
                parameter["schema"] = {"type": "string", **_constraints(path, parameter["name"])}
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document.get("paths", {}).items():
        for method in _METHODS:
            if method in item:
                yield path, item[method]


def _constraints(path: str, parameter: str) -> dict[str, Any]:
    if parameter == "served":
        return SERVED_NAME
    if parameter == "name" and path.startswith("/api/2.0/serving-endpoints"):
        return ENDPOINT_NAME
    return IDENTIFIER


def _tidy_success(operation: dict[str, Any]) -> None:
    """Drop the titles FastAPI makes up for answers it has no model of."""
    for status in ("200", "201"):
        for content in operation["responses"].get(status, {}).get("content", {}).values():
            content.get("schema", {}).pop("title", None)


def _error_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "title": "Error",
        "description": "What every error is answered with.",
        "required": ["error_code", "message"],
        "properties": {
            "error_code": {"type": "string", "enum": list(HTTP_STATUS)},
            "message": {
                "type": "string",
                "minLength": 1,
                "description": "What is wrong, and what would be right.",
            },
            "details": {"type": "array", "items": {"type": "object"}},
        },
    }


def _error_response(status: int) -> dict[str, Any]:
    codes = [code for code, its_status in HTTP_STATUS.items() if its_status == status]
    if status == LockedOut.http_status:
        codes.append(LockedOut.error_code)
    of_this_status = {"properties": {"error_code": {"enum": codes}}}
    schema = {"allOf": [{"$ref": "#/components/schemas/Error"}, of_this_status]}
    return {"description": STATUSES[status], "content": {"application/json": {"schema": schema}}}


def _response_name(status: int) -> str:
    return f"Error{status}"
