"""Read a request's body as rows of one kind, so that bodies of the same kind can be joined into one. Pure.

Joining must not show in any answer, so a body is only read where a table made of it alone and a table made of it and
others give each row the same values. pandas and NumPy choose the type of a column by looking at all of its values:
bodies are of one kind only when each column holds one type in all of them. What is not understood here, or may be
read differently in company, is not read: it is predicted by itself. That is dates, empty cells, NaN and infinities
(a model may fill gaps with what it finds in other rows), whole numbers beyond 64 bits, row numbers that do not just
count, ``params``, and bytes that MLflow's releases decode in different ways.
"""

from __future__ import annotations

import json
from math import isfinite
from typing import Any, Collection, NamedTuple, Optional, Union

SPLIT, RECORDS, INSTANCES, INPUTS = "dataframe_split", "dataframe_records", "instances", "inputs"
FORMATS = (SPLIT, RECORDS, INSTANCES, INPUTS)
IGNORED_KEYS = frozenset(("client_request_id", "usage_context", "databricks_options"))
"""Beside the rows: keys that reach no model which is sent rows."""

LONGEST_BODY = 64 * 1024
"""Bytes. Longer ones hold many rows already and cost more to read twice than they could gain."""
EXACT_INTEGER = 2**53
"""Up to here a whole number and the float of its value are the same to whoever asks for floats."""
LARGEST_INTEGER = 2**63
"""From here on NumPy changes the type of the column."""

NUMBER = "number"
"""Type of a column that is made a float of, whatever number is sent."""


class Rows(NamedTuple):
    """The rows of one body."""

    format: str
    kind: tuple[Any, ...]
    """Format, names, types and shapes. Bodies of equal kinds can be joined."""
    values: Any
    """A list of rows, or ``{name: list}`` for columns."""
    length: int
    columns: Optional[list[Any]] = None
    """Of ``dataframe_split``."""
    numbered: bool = False
    """It brings row numbers, which only count."""


def read(body: Union[bytes, bytearray], floats: Collection[str] = (), dates: bool = False) -> Optional[Rows]:
    """Return the rows of a JSON body; None when it has to be predicted by itself.

    ``floats``: names of the columns that the model's signature makes floats of, whatever number is sent.
    ``dates``: the signature has dates, whose format pandas guesses from the first one it sees.
    """
    if len(body) > LONGEST_BODY or dates:
        return None
    try:
        # Given bytes, json would guess an encoding, which not every MLflow does: a BOM is refused in text.
        parsed = json.loads(body.decode("utf-8"))
        if not isinstance(parsed, dict) or parsed.pop("params", None) is not None:
            return None
        formats = [key for key in parsed if key not in IGNORED_KEYS]
        if len(formats) != 1 or formats[0] not in FORMATS:
            return None
        rows = _READERS[formats[0]](parsed[formats[0]], floats)
    except Exception:
        # Whatever it is, MLflow will explain it: also a RecursionError.
        return None
    return rows if rows is not None and rows.length else None


def join(parts: list[Rows]) -> bytes:
    """Return one body that holds the rows of all, in order. They must be of one kind."""
    first = parts[0]
    if isinstance(first.values, dict):
        values: Any = {name: [item for part in parts for item in part.values[name]] for name in first.values}
    else:
        values = [row for part in parts for row in part.values]
    content: dict[str, Any] = {}
    if first.format == SPLIT:
        content[SPLIT] = {"data": values}
        if first.columns is not None:
            content[SPLIT]["columns"] = first.columns
        if first.numbered:
            content[SPLIT]["index"] = list(range(len(values)))
    else:
        content[first.format] = values
    return json.dumps(content).encode()


def split(body: str, counts: list[int]) -> Optional[list[bytes]]:
    """Cut a joined answer into one for each of the bodies, which had ``counts`` rows; None when it cannot be cut.

    The answer is MLflow's JSON: read and written again it is the same text.
    """
    answer = json.loads(body)
    predictions = answer.get("predictions") if isinstance(answer, dict) and len(answer) == 1 else None
    if not isinstance(predictions, list) or len(predictions) != sum(counts):
        return None
    pieces: list[bytes] = []
    at = 0
    for count in counts:
        pieces.append(json.dumps({"predictions": predictions[at : at + count]}).encode())
        at += count
    return pieces


def _read_split(table: Any, floats: Collection[str]) -> Optional[Rows]:
    if not isinstance(table, dict) or not table.keys() <= {"columns", "data", "index"}:
        return None
    data, columns = table.get("data"), table.get("columns")
    index = table.get("index")
    if not isinstance(data, list) or not (index is None or _counts(index, len(data))):
        return None
    if columns is not None and (not isinstance(columns, list) or not _are_names(columns)):
        return None
    types = None
    for row in data:
        if not isinstance(row, list) or (columns is not None and len(row) != len(columns)):
            return None
        of_row = tuple(map(_scalar_type, row, columns or range(len(row)), [floats] * len(row)))
        if types is None:
            types = of_row
        if of_row != types or None in of_row:
            return None
    names = None if columns is None else tuple(columns)
    numbered = index is not None
    return Rows(SPLIT, (SPLIT, (names, types, numbered)), data, len(data), columns, numbered)


def _read_records(records: Any, floats: Collection[str]) -> Optional[Rows]:
    if not isinstance(records, list):
        return None
    kind = None
    for record in records:
        if not isinstance(record, dict):
            return None
        of_record = tuple((name, _scalar_type(value, name, floats)) for name, value in record.items())
        if kind is None:
            kind = of_record
        if of_record != kind or not record or any(type_ is None for _, type_ in of_record):
            return None
    return Rows(RECORDS, (RECORDS, (kind,)), records, len(records))


def _read_items(items: Any, floats: Collection[str], name: str) -> Optional[Rows]:
    """``instances``, and ``inputs`` as a list: one row an item, a scalar, an array or ``{name: …}``."""
    if not isinstance(items, list):
        return None
    kind = None
    for item in items:
        of_item: Any = (
            tuple((key, _array_type(value, key in floats)) for key, value in item.items())
            if isinstance(item, dict)
            else _array_type(item, "" in floats)
        )
        if kind is None:
            kind = of_item
        if of_item is None or of_item != kind or (isinstance(item, dict) and not _are_known(of_item)):
            return None
    return Rows(name, (name, (kind,)), items, len(items))


def _read_instances(items: Any, floats: Collection[str]) -> Optional[Rows]:
    return _read_items(items, floats, INSTANCES)


def _read_inputs(inputs: Any, floats: Collection[str]) -> Optional[Rows]:
    if not isinstance(inputs, dict):
        return _read_items(inputs, floats, INPUTS)
    kinds: list[tuple[str, Any]] = []
    counts: set[int] = set()
    for name, column in inputs.items():
        if not isinstance(column, list) or not column:
            return None
        types = {_array_type(item, name in floats) for item in column}
        if len(types) != 1 or None in types:
            return None
        kinds.append((name, types.pop()))
        counts.add(len(column))
    if len(counts) != 1:
        return None
    return Rows(INPUTS, (INPUTS, tuple(kinds)), inputs, counts.pop())


_READERS = {
    SPLIT: _read_split,
    RECORDS: _read_records,
    INSTANCES: _read_instances,
    INPUTS: _read_inputs,
}


def _scalar_type(value: Any, name: Any, floats: Collection[str]) -> Any:
    """The type that decides on a column's type; None for a value that may be read differently in company."""
    kind = type(value)
    if kind is float:
        if not isfinite(value):
            return None
        return NUMBER if name in floats else float
    if kind is int:
        if name in floats and -EXACT_INTEGER <= value <= EXACT_INTEGER:
            return NUMBER
        return int if -LARGEST_INTEGER <= value < LARGEST_INTEGER else None
    return kind if kind is str or kind is bool else None


def _array_type(value: Any, is_float: bool) -> Any:
    """Shape and type of a regular array; None for a ragged or mixed one."""
    if not isinstance(value, list):
        return _scalar_type(value, "", ("",) if is_float else ())
    types = {_array_type(item, is_float) for item in value}
    if len(types) != 1 or None in types:
        return None
    return (len(value), types.pop())


def _counts(index: Any, length: int) -> bool:
    """Whether the row numbers are 0, 1, 2 …: those of joined rows can only go on counting."""
    return bool(index == list(range(length)) and all(type(number) is int for number in index))


def _are_names(columns: list[Any]) -> bool:
    return all(type(name) is str for name in columns) and len(set(columns)) == len(columns)


def _are_known(kinds: Any) -> bool:
    return bool(kinds) and all(kind is not None for _, kind in kinds)
