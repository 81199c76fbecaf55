"""Do two answers to one request say the same? Pure.

They do when their status is the same and so is their JSON: keys in any order, integers and texts equal, and numbers of
which one is a float within ``RELATIVE`` of the larger, or ``ABSOLUTE`` of each other, as ``numpy.allclose`` has it: the
same model in another process, batch or library version differs by about as much in single precision.
"""

import math
from typing import Any, Literal, NamedTuple, cast

import orjson

from servery_gateway.http import Answer

RELATIVE = 1e-5
ABSOLUTE = 1e-8
SHOWN = 80
"""Characters of a value that are kept."""

Kind = Literal["status", "not_json", "type", "keys", "length", "number", "value"]


class Difference(NamedTuple):
    """The first difference that was found."""

    kind: Kind
    where: str
    """Path in the answer, for instance ``predictions[0].label``; it may hold what a model made of its input."""
    values: tuple[str, str]
    """Both, cut to ``SHOWN`` characters."""


_Path = tuple["_Path | None", str]


def difference(expected: Answer, got: Answer) -> Difference | None:
    """Return in what ``got`` differs from ``expected``, None when it says the same."""
    if expected.status != got.status:
        return Difference("status", "", (str(expected.status), str(got.status)))
    if expected.body == got.body:
        return None
    try:
        one, other = orjson.loads(expected.body), orjson.loads(got.body)
    except orjson.JSONDecodeError:
        return Difference("not_json", "", (_shown(expected.body), _shown(got.body)))
    return _find(one, other)


def _find(expected: Any, got: Any) -> Difference | None:
    # With a list instead of recursion: how deep an answer is nested is the model's choice.
    todo: list[tuple[Any, Any, _Path | None]] = [(expected, got, None)]
    while todo:
        one, other, path = todo.pop()
        kind = _differs(one, other)
        if kind is not None:
            return Difference(kind, _written(path), (_shown(one), _shown(other)))
        if isinstance(one, dict):
            items = cast(dict[str, Any], one)
            todo += [(value, other[key], (path, f".{key}")) for key, value in items.items()]
        elif isinstance(one, list):
            pairs = zip(cast(list[Any], one), other, strict=True)
            todo += [(a, b, (path, f"[{at}]")) for at, (a, b) in enumerate(pairs)]
    return None


def _differs(one: Any, other: Any) -> Kind | None:
    """Compare two values, but not what is in them."""
    kinds = {type(one), type(other)}
    if kinds <= {int, float} and float in kinds:
        return None if math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE) else "number"
    if len(kinds) > 1:
        return "type"
    if isinstance(one, dict):
        return None if one.keys() == other.keys() else "keys"
    if isinstance(one, list):
        return None if len(cast(list[Any], one)) == len(other) else "length"
    if one == other:
        return None
    return "number" if kinds == {int} else "value"


def _written(path: _Path | None) -> str:
    steps: list[str] = []
    while path is not None:
        path, step = path
        steps.append(step)
    return "".join(reversed(steps)).removeprefix(".")[:SHOWN]


def _shown(value: Any) -> str:
    text = value[:SHOWN].decode("utf-8", "replace") if isinstance(value, bytes) else repr(value)
    return text[:SHOWN]
