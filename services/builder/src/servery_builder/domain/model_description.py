"""What a model takes and gives, as MLflow wrote it down when the model was logged: its signature and input example.

Pure. The files come from whoever logged the model, so each part is taken only when it is what it should be.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from servery_builder.domain.build import BuildError
from servery_builder.domain.model_path import ReadText, inside
from servery_common.contracts.builds import FailureCode

REQUEST_KEYS = frozenset({"dataframe_split", "dataframe_records", "inputs", "instances"})
"""Fields of a scoring request that hold the data."""

Found = str | None


@dataclass(frozen=True)
class Description:
    """All JSON texts; None where the model was logged without."""

    inputs: Found
    outputs: Found
    params: Found
    input_example: Found
    """A request body."""


def describe_model(model_dir: Path, read: ReadText) -> Description:
    """Return what the model's files say. Raises ``BuildError`` for files that are not what they should be."""
    try:
        document = _mapping(yaml.safe_load(read(model_dir / "MLmodel")))
    except yaml.YAMLError as error:
        raise BuildError(
            FailureCode.ARTIFACT_MISSING, "The model's MLmodel file is not valid YAML; log the model again."
        ) from error
    signature = _mapping(document.get("signature"))
    return Description(
        inputs=_json_list(signature.get("inputs")),
        outputs=_json_list(signature.get("outputs")),
        params=_json_list(signature.get("params")),
        input_example=_input_example(model_dir, _mapping(document.get("saved_input_example_info")), read),
    )


def _input_example(model_dir: Path, info: Mapping[str, Any], read: ReadText) -> Found:
    """The request body MLflow made of the example; for a model of an MLflow that made none yet, made here."""
    for key, to_body in (("serving_input_path", _as_it_is), ("artifact_path", _request_body)):
        name = info.get(key)
        if not isinstance(name, str):
            continue
        try:
            content = json.loads(read(inside(model_dir, model_dir / name, name)))
        except (BuildError, FileNotFoundError, ValueError, RecursionError):
            # Deleted, megabytes long, outside the model, no JSON: it would have been nice to have.
            continue
        body = to_body(content, info)
        if body is not None:
            return json.dumps(body)
    return None


ToBody = Callable[[Any, Mapping[str, Any]], dict[str, Any] | None]


def _as_it_is(content: Any, info: Mapping[str, Any]) -> dict[str, Any] | None:
    return cast("dict[str, Any]", content) if isinstance(content, dict) else None


def _request_body(content: Any, info: Mapping[str, Any]) -> dict[str, Any] | None:
    """What MLflow makes of an example since 2.16, from the file that all versions write."""
    params: Any = None
    if info.get("params") and isinstance(content, dict) and {"inputs", "params"} <= content.keys():
        content, params = content["inputs"], content["params"]
    match info.get("type"), content:
        case "dataframe", {"columns": _, "data": _}:
            body: dict[str, Any] = {"dataframe_split": content}
        case "dataframe", list():
            body = {"dataframe_split": {"data": content}}
        case (("ndarray" | "json_object"), dict()) if REQUEST_KEYS & content.keys():
            body = dict(cast("dict[str, Any]", content))
        case (("ndarray" | "json_object"), _):
            body = {"inputs": content}
        case _:
            return None
    return body if params is None else body | {"params": params}


def _json_list(value: object) -> Found:
    """A schema, if that is what it is: MLflow writes a list as JSON text into the YAML."""
    if not isinstance(value, str):
        return None
    try:
        return value if isinstance(json.loads(value), list) else None
    except (ValueError, RecursionError):
        return None


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}
