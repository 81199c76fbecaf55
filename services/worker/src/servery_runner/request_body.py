"""What a request's body says to the server and not to the model: ``stream``, and keys that are Databricks' own.

MLflow takes a body with ``messages``, ``prompt`` or ``input`` whole for the model's input, so what is not meant for the
model has to be taken out first; of any other body it reads the keys it knows. Bodies are parsed here only when
they contain one of the keys at all: scoring a table costs one search and no second parsing.
"""

from __future__ import annotations

import json
import re
from typing import Any, Collection, NamedTuple, Union

STREAM = "stream"
SERVER_KEYS = ("client_request_id", "usage_context", "databricks_options")
"""Top-level keys that Databricks' API defines beside the model's input."""
UNWRAPPED_KEYS = ("messages", "prompt", "input")
"""A body with one of these is the input of a chat, completions or embeddings model as it stands."""

_MARKER = re.compile(f'"(?:{"|".join((STREAM, *SERVER_KEYS))})"'.encode())
"""One search from quote to quote; a search for each key takes four times as long in a large table."""


class RequestBody(NamedTuple):
    """The body for the model, and whether its answer is to be streamed."""

    content: Union[bytes, bytearray]
    stream: bool


def read(body: Union[bytes, bytearray], content_type: str, declared: Collection[str] | None) -> RequestBody:
    """Take out what is not for the model.

    ``declared``: names of the model's inputs and params, which always reach it; None without a signature. Never
    raises: a body that cannot be read is left for MLflow to explain.
    """
    if _MARKER.search(body) is None or not _is_json(content_type):
        return RequestBody(body, False)
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return RequestBody(body, False)
    if not isinstance(parsed, dict):
        return RequestBody(body, False)
    stream = parsed.get(STREAM) is True
    if not any(key in parsed for key in UNWRAPPED_KEYS):
        return RequestBody(body, stream)
    kept = {key: value for key, value in parsed.items() if not _is_servers(key, stream, declared)}
    try:
        return RequestBody(body if len(kept) == len(parsed) else json.dumps(kept).encode(), stream)
    except RecursionError:
        return RequestBody(body, stream)


def declared_names(metadata: Any) -> frozenset[str] | None:
    """Names of the inputs and params of a model's signature; None when there is no signature."""
    if metadata.signature is None:
        return None
    inputs, params = metadata.get_input_schema(), metadata.get_params_schema()
    names = list(inputs.input_names()) if inputs is not None and inputs.has_input_names() else []
    return frozenset([*names, *(param.name for param in params or [])])


def _is_json(content_type: str) -> bool:
    return content_type.split(";", 1)[0].strip() == "application/json"


def _is_servers(key: str, stream: bool, declared: Collection[str] | None) -> bool:
    if declared is not None and key in declared:
        return False
    # A model without a signature gets ``"stream": false`` as from MLflow's own server, which does not stream.
    return key in SERVER_KEYS or (key == STREAM and (stream or declared is not None))
