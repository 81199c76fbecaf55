"""Just enough YAML to write a document of mappings, lists and scalars: strings are quoted as in JSON.

Only ``docs/asyncapi.yaml`` is written with it, so that no service depends on a YAML library for its documentation.
"""

import json
import re
from typing import Any, cast

_PLAIN = re.compile(r"[A-Za-z$_][A-Za-z0-9_$.-]*")


def to_yaml(value: dict[str, Any]) -> str:
    """Return the document."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict) and value:
        mapping = cast("dict[str, Any]", value)
        return [line for key, item in mapping.items() for line in _entry(f"{_key(key)}:", item)]
    if isinstance(value, list) and value:
        return [line for item in cast("list[Any]", value) for line in _item(item)]
    return [json.dumps(value, ensure_ascii=False)]


def _entry(head: str, item: Any) -> list[str]:
    lines = _lines(item)
    if isinstance(item, dict | list) and item:
        return [head, *(f"  {line}" for line in lines)]
    return [f"{head} {lines[0]}"]


def _item(item: Any) -> list[str]:
    first, *rest = _lines(item)
    return [f"- {first}", *(f"  {line}" for line in rest)]


def _key(key: str) -> str:
    return key if _PLAIN.fullmatch(key) else json.dumps(key)
