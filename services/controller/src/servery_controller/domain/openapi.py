"""The OpenAPI document of an endpoint: how to score each of its served entities. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import quote

from servery_common.contracts.builds import ModelDescription
from servery_common.errors import BadRequest
from servery_controller.domain.model_schema import (
    Json,
    answer_schema,
    parse_json,
    parse_signature,
    request_schemas,
)

REFUSALS = {
    "400": "The request does not fit the model's signature, or the model raised an error on it.",
    "401": "The token is missing, wrong or expired.",
    "403": "The caller may not query this endpoint.",
    "404": "There is no such endpoint or served model.",
    "429": "Too many requests: the queue is full or a rate limit is reached. Try again later.",
    "500": "Servery failed on this request.",
    "503": "No replica could answer. Try again in a moment.",
    "504": "The model took longer than the endpoint's timeout.",
}


@dataclass(frozen=True, slots=True)
class DescribedEntity:
    """A served entity and what its model was logged with."""

    name: str
    description: ModelDescription


def openapi_document(endpoint: str, version: int, host: str, entities: Sequence[DescribedEntity]) -> Json:
    """Return the OpenAPI 3.1 document of an endpoint's active config ``version``.

    ``host`` is where the caller reaches Servery; empty: where it got the document from. Raises BadRequest when no
    model has a signature.
    """
    paths: Json = {}
    without: list[str] = []
    for entity in entities:
        operation = _operation(entity)
        if operation is None:
            without.append(entity.name)
        else:
            paths[f"/served-models/{quote(entity.name, safe='')}/invocations"] = {"post": operation}
    if not paths:
        raise BadRequest(
            f"No model of endpoint '{endpoint}' was logged with a signature, and that is what its OpenAPI document is"
            " made of. Log the model with one (signature=infer_signature(inputs, outputs), or input_example=inputs)"
            " and update the endpoint to the new version."
        )
    info: Json = {"title": endpoint, "version": str(version)}
    if without:
        info["description"] = f"Not described, because logged without a signature: {', '.join(without)}."
    return {
        "openapi": "3.1.0",
        "info": info,
        "servers": [{"url": f"{host}/serving-endpoints/{quote(endpoint, safe='')}"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error_code", "message"],
                    "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
                }
            },
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(entity: DescribedEntity) -> Json | None:
    signature = parse_signature(entity.description)
    if signature is None:
        return None
    logged = entity.description.input_example
    example = cast("Json", parse_json(logged)) if logged else None
    requests = request_schemas(signature, example)
    body: Json = {"schema": {"oneOf": list(requests.values())}}
    if example:
        body["examples"] = {"logged": {"summary": "What the model was logged with.", "value": example}}
    answer = answer_schema(signature, unwrapped="fields" in requests)
    return {
        "operationId": f"query {entity.name}",
        "summary": f"Query the served model {entity.name}.",
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {
            "200": {
                "description": "The model's predictions.",
                "content": {"application/json": {"schema": answer}},
            }
        }
        | {status: _refusal(description) for status, description in REFUSALS.items()},
    }


def _refusal(description: str) -> Json:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}
