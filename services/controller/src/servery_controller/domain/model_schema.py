"""MLflow's signatures as JSON Schema: what a scoring request may hold and what its answer holds. Pure.

A signature is a list of columns or of tensors, each with a name or (a single one) without. Types this code has never
heard of are described as "anything": a newer MLflow's model is still described as far as it is understood.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from servery_common.contracts.builds import ModelDescription

Json = dict[str, Any]

SCALARS: Mapping[str, Json] = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer", "format": "int32"},
    "long": {"type": "integer", "format": "int64"},
    "float": {"type": "number", "format": "float"},
    "double": {"type": "number", "format": "double"},
    "string": {"type": "string"},
    "binary": {"type": "string", "contentEncoding": "base64"},
    # Not the format "date-time": MLflow takes everything that pandas reads, days without a time among it.
    "datetime": {"type": "string", "examples": ["2024-02-29T12:00:00"]},
}
DEEPEST = 50
"""Levels of nesting that are described; what lies deeper is "anything". No model is meant to have as many."""
FORMATS = ("dataframe_split", "dataframe_records", "inputs", "instances")


@dataclass(frozen=True)
class Signature:
    """A model's signature, parsed."""

    inputs: Sequence[Json]
    outputs: Sequence[Json] | None
    params: Sequence[Json]


def parse_signature(description: ModelDescription) -> Signature | None:
    """Return the signature; None when the model was logged without one that says what it takes."""
    inputs = _fields(description.inputs)
    if not inputs:
        return None
    params = [param for param in _fields(description.params) or () if "name" in param]
    return Signature(inputs, _fields(description.outputs), params)


def request_schemas(signature: Signature, example: Json | None) -> dict[str, Json]:
    """Return a schema for each format a request may have, the usual first.

    ``example`` is the body the model was logged with: it shows a format that this kind of model also takes.
    """
    if _is_tensors(signature.inputs):
        data = {"inputs": _tensors(signature.inputs), "instances": _instances(signature.inputs)}
    elif _named(signature.inputs):
        data = {
            "dataframe_split": _split(signature.inputs),
            "dataframe_records": {"type": "array", "items": _record(signature.inputs)},
        }
    else:
        data = {name: _values(signature.inputs) for name in ("inputs", "instances")}
    shown = next((name for name in FORMATS if name in (example or {})), None)
    if shown is not None and shown not in data:
        data[shown] = _shown(shown, signature.inputs)
    params = _params(signature.params)
    schemas = {name: _body(name, schema, params) for name, schema in data.items()}
    if example and shown is None:
        # MLflow passes a body on as it is that has none of the formats, a chat's messages for example.
        fields = _record([*signature.inputs, *_as_optional(signature.params)])
        schemas["fields"] = fields | {"not": {"anyOf": [{"required": [name]} for name in data]}}
    return schemas


def answer_schema(signature: Signature, *, unwrapped: bool) -> Json:
    """Return the schema of an answer. ``unwrapped``: or as it is, as a body without a format is answered."""
    wrapped: Json = {
        "type": "object",
        "required": ["predictions"],
        "properties": {"predictions": _predictions(signature.outputs)},
    }
    if not unwrapped:
        return wrapped
    # MLflow leaves out what a chat's answer has not, though its signature says that it has.
    bare = _without_required(_record(signature.outputs)) if signature.outputs else {}
    return {"anyOf": [wrapped, bare]}


def _without_required(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_required(item) for item in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    items = cast("Json", schema).items()
    # A property of that name is a schema, not a list.
    return {k: _without_required(v) for k, v in items if k != "required" or not isinstance(v, list)}


def _predictions(outputs: Sequence[Json] | None) -> Json:
    if not outputs:
        return {}
    if _is_tensors(outputs):
        return _tensors(outputs)
    if not _named(outputs):
        return _values(outputs)
    # A DataFrame is answered as records; a dictionary as it is.
    return {"anyOf": [{"type": "array", "items": _record(outputs)}, _columns(outputs)]}


def parse_json(text: str) -> Any:
    """Return the value, with None for numbers that JSON has not (Python writes NaN, and reads 1e999 as infinite)."""

    def finite(number: str) -> float | None:
        value = float(number)
        return value if math.isfinite(value) else None

    return json.loads(text, parse_constant=lambda _: None, parse_float=finite)


def type_schema(spec: Mapping[str, Any], levels: int = DEEPEST) -> Json:
    """Return the schema of one MLflow type, as in ``{"type": "array", "items": {"type": "long"}}``."""
    if levels == 0:
        return {}
    match spec.get("type"):
        case "array":
            return {"type": "array", "items": type_schema(_json(spec.get("items")), levels - 1)}
        case "object":
            return _object(_json(spec.get("properties")), levels - 1)
        case "map":
            values = type_schema(_json(spec.get("values")), levels - 1)
            return {"type": "object", "additionalProperties": values}
        case "tensor":
            return _tensor(spec)
        case str(name):
            return dict(SCALARS.get(name, {}))
        case _:
            return {}


def _body(name: str, data: Json, params: Json | None) -> Json:
    properties = {name: data} if params is None else {name: data, "params": params}
    return {"type": "object", "required": [name], "properties": properties}


def _split(columns: Sequence[Json]) -> Json:
    names = [column["name"] for column in columns]
    return {
        "type": "object",
        "required": ["columns", "data"],
        "properties": {
            "index": {"type": "array", "items": {"type": "integer"}},
            "columns": {"type": "array", "items": {"type": "string", "enum": names}},
            "data": {
                "type": "array",
                "items": {"type": "array", "prefixItems": [_field(column) for column in columns]},
            },
        },
    }


def _record(columns: Sequence[Json], levels: int = DEEPEST) -> Json:
    named = [column for column in columns if "name" in column]
    schema: Json = {"type": "object", "properties": {c["name"]: _field(c, levels) for c in named}}
    required = [c["name"] for c in named if c.get("required", True)]
    return schema | {"required": required} if required else schema


def _columns(columns: Sequence[Json]) -> Json:
    """One object for all rows: each column a list of its values, or one value."""
    record = _record(columns)
    properties = {
        name: {"anyOf": [schema, {"type": "array", "items": schema}]}
        for name, schema in record["properties"].items()
    }
    return record | {"properties": properties}


def _values(columns: Sequence[Json]) -> Json:
    """What has no name: a list of values, or of rows where there are several columns."""
    if len(columns) == 1:
        schema = _field(columns[0])
        return {"anyOf": [{"type": "array", "items": schema}, schema]}
    return {"type": "array", "items": {"type": "array", "prefixItems": [_field(c) for c in columns]}}


def _shown(name: str, columns: Sequence[Json]) -> Json:
    if name == "dataframe_split":
        return {"type": "object", "required": ["data"], "properties": {"data": {"type": "array"}}}
    if _is_tensors(columns) or not _named(columns):
        return {"type": "array"}
    return {"anyOf": [{"type": "array", "items": _record(columns)}, _columns(columns)]}


def _tensors(tensors: Sequence[Json]) -> Json:
    if not _named(tensors):
        return _tensor(tensors[0])
    return {
        "type": "object",
        "required": [tensor["name"] for tensor in tensors],
        "properties": {tensor["name"]: _tensor(tensor) for tensor in tensors},
    }


def _instances(tensors: Sequence[Json]) -> Json:
    """Row by row: each instance holds one item of every tensor's first dimension."""
    if not _named(tensors):
        return _tensor(tensors[0])
    rows = {tensor["name"]: _tensor(tensor).get("items", {}) for tensor in tensors}
    return {"type": "array", "items": {"type": "object", "required": list(rows), "properties": rows}}


def _tensor(spec: Mapping[str, Any]) -> Json:
    tensor = _json(spec.get("tensor-spec"))
    schema = _dtype(str(tensor.get("dtype", "")))
    shape = tensor.get("shape")
    dimensions = cast("list[Any]", shape) if isinstance(shape, list) else []
    if len(dimensions) > DEEPEST:
        return {}
    for size in reversed(dimensions):
        schema = {"type": "array", "items": schema}
        if isinstance(size, int) and size >= 0:
            schema |= {"minItems": size, "maxItems": size}
    return schema


def _dtype(name: str) -> Json:
    """A NumPy type by its name: float32, int64, uint8, bool, str, <U10, object, …"""
    if name.startswith("bool"):
        return {"type": "boolean"}
    if name.startswith(("int", "uint")):
        return {"type": "integer"} | ({"format": name} if name in ("int32", "int64") else {})
    if name.startswith("float"):
        known = {"float32": "float", "float64": "double"}
        return {"type": "number"} | ({"format": known[name]} if name in known else {})
    return {"type": "string"} if name.startswith(("str", "<U", "datetime")) else {}


def _field(column: Mapping[str, Any], levels: int = DEEPEST) -> Json:
    schema = type_schema(column, levels)
    return schema if column.get("required", True) else _nullable(schema)


def _nullable(schema: Json) -> Json:
    return schema | {"type": [schema["type"], "null"]} if "type" in schema else schema


def _object(properties: Json, levels: int) -> Json:
    return _record([{**_json(spec), "name": name} for name, spec in properties.items()], levels)


def _params(params: Sequence[Json]) -> Json | None:
    if not params:
        return None
    return {"type": "object", "properties": {param["name"]: _param(param) for param in params}}


def _param(param: Json) -> Json:
    schema = type_schema(param)
    if param.get("shape") is not None:
        schema = {"type": "array", "items": schema}
    default = param.get("default")
    return (_nullable(schema) if default is None else schema) | {"default": default}


def _as_optional(params: Sequence[Json]) -> list[Json]:
    return [{**param, "required": False} for param in params]


def _named(fields: Sequence[Json]) -> bool:
    return all("name" in field for field in fields)


def _is_tensors(fields: Sequence[Json]) -> bool:
    return all(field.get("type") == "tensor" for field in fields)


def _fields(text: str | None) -> list[Json] | None:
    """The items of a schema; ``text`` is a JSON list, and what is in it may be anything."""
    if text is None:
        return None
    parsed = cast("list[object]", parse_json(text))
    return [_with_text_name(cast("Json", field)) for field in parsed if isinstance(field, dict)]


def _with_text_name(field: Json) -> Json:
    # Columns of a DataFrame may have numbers for names; in JSON they are text.
    name = field.get("name")
    nameless = {key: value for key, value in field.items() if key != "name"}
    return nameless if name is None else {**nameless, "name": str(name)}


def _json(value: object) -> Json:
    return cast("Json", value) if isinstance(value, dict) else {}
