"""Wrong values for every field that databricks-sdk can send, made from the SDK's own request classes.

A new field of a later SDK is swept from the day the SDK is installed.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from databricks.sdk.service import serving

Path = tuple[str | int, ...]

OPAQUE = (
    serving.AiGatewayConfig,
    serving.AutoCaptureConfigInput,
    serving.ExternalModel,
    serving.TelemetryConfig,
)
"""Refused as a whole, so nobody looks into them."""


class Wrong(NamedTuple):
    """A value of the wrong type, or an unknown word, and where it goes."""

    path: Path
    value: Any

    @property
    def field(self) -> str:
        """The name of the field that is wrong."""
        return next(str(part) for part in reversed(self.path) if isinstance(part, str))

    def __str__(self) -> str:
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return f"{place.removeprefix('.')}={self.value!r}"

    def put_into(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return a copy of ``body`` with the value in its place; what leads there is made where it is missing."""
        changed: Any = copy.deepcopy(body)
        node = changed
        for part, following in zip(self.path, self.path[1:], strict=False):
            empty: Any = [] if isinstance(following, int) else {}
            if isinstance(node, list):
                if len(node) <= int(part):
                    node.append(empty)
                node = node[int(part)]
            else:
                node = node.setdefault(part, empty)
        if isinstance(node, list):
            node[:] = [self.value]
        else:
            node[self.path[-1]] = self.value
        return changed


def of_fields(cls: type, path: Path = ()) -> Iterator[Wrong]:
    """Every field of a request class of the SDK, at any depth, with each of its wrong values."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        yield from of_type(hints[field.name], (*path, field.name))


def of_type(hint: Any, path: Path) -> Iterator[Wrong]:
    """The wrong values for one type."""
    hint = _without_none(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        yield from (Wrong(path, value) for value in ("text", 5, True, {"a": "b"}))
        yield from of_type(arguments[0], (*path, 0))
    elif origin is dict:
        yield from (
            Wrong(path, value) for value in ("text", 5, True, ["A=1"], {"A": 1}, {"A": None}, {"A": []})
        )
    elif dataclasses.is_dataclass(hint):
        yield from (Wrong(path, value) for value in ("text", 5, True, ["text"]))
        if hint not in OPAQUE:
            yield from of_fields(typing.cast("type", hint), path)
    elif issubclass(hint, enum.Enum):
        yield from (Wrong(path, value) for value in ("NO_SUCH_WORD", "", 5, True, [], {}))
    elif hint is bool:
        yield from (Wrong(path, value) for value in ("perhaps", "", 2, -1, 0.5, [], {}))
    elif hint is int:
        yield from (Wrong(path, value) for value in ("many", "", 1.5, True, -1, 10**30, [], {}))
    elif hint is str:
        yield from (Wrong(path, value) for value in (1.5, True, [], ["text"], {}, "a\0b", "\ud800"))
    else:
        raise NotImplementedError(f"{path}: no wrong values are known for {hint}")


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = (one for one in typing.get_args(hint) if one is not type(None))
    return hint
