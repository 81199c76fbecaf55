"""Show that a model is row-wise: it answers rows that come together as it answers each of them alone.

Nothing a model says of itself proves that. Its input example (or, without one, rows made up by its signature) is
varied and predicted row by row and in company, in sizes up to the most rows that will ever be joined; every answer
has to be the same to the last byte. A model that looks at the whole of what it is given (a mean, a rank, a count, row
numbers), keeps a state or rolls dice gives itself away here, and so does one whose last digits depend on how many
rows it gets.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from servery_runner import rows as rows_of
from servery_runner.rows import INPUTS, INSTANCES, RECORDS, SPLIT, Rows

MOST_ROWS = 128
"""Rows joined into one prediction at most."""
SIZES = (2, 8, 32, MOST_ROWS)
BUDGET_SECONDS = 3.0
"""A slow model is shown to be row-wise up to the size that could be tried by then."""
MOST_ALONE = 10
CLOSE = 1e-5
"""What single precision can differ by when sums are added up in another order."""
_FACTORS = (0.5, -1.0, 2.0, 0.1, 7.0)
_LARGEST_EXAMPLE_ITEM = 16_384

Score = Callable[[bytes], "tuple[int, str]"]
"""Status and body of the answer to a JSON body."""


class Proof(NamedTuple):
    """What was found out about a model."""

    formats: tuple[str, ...]
    """Body formats whose rows may be joined; empty: none."""
    max_rows: int
    reason: str
    """Why not, or why no further; for people."""
    seconds: tuple[tuple[int, float], ...] = ()
    """How long predictions took: (rows, seconds)."""

    def head(self) -> dict[str, Any]:
        """As JSON for the worker, which keeps it for the next runner of this model."""
        return {
            "formats": list(self.formats),
            "max_rows": self.max_rows,
            "reason": self.reason,
            "seconds": [list(pair) for pair in self.seconds],
        }

    @classmethod
    def from_head(cls, head: dict[str, Any]) -> Proof:
        """The inverse of ``head``."""
        return cls(
            tuple(head["formats"]),
            int(head["max_rows"]),
            str(head["reason"]),
            tuple((int(count), float(seconds)) for count, seconds in head["seconds"]),
        )


OFF = Proof((), 1, "switched off with SERVERY_BATCHING=off")
FORCED = Proof(rows_of.FORMATS, MOST_ROWS, "switched on with SERVERY_BATCHING=on")


def prove(score: Score, example: Optional[Rows], clock: Callable[[], float] = time.monotonic) -> Proof:
    """Find out in which formats, and up to how many rows, joined rows get the answers they get alone."""
    if example is None:
        return Proof((), 1, "it has no input example or signature whose rows could be tried")
    ends = clock() + BUDGET_SECONDS
    proven: list[str] = []
    most = MOST_ROWS
    seconds: list[tuple[int, float]] = []
    reason = ""
    for form in _forms(example):
        trial = _Trial(score, form, ends, clock)
        found = trial.run()
        if found > 1:
            proven.append(form.format)
            most = min(most, found)
            seconds += trial.seconds
        elif form is example or not reason:
            reason = trial.reason
        if not proven:
            break  # The example's own format comes first and decides.
    if not proven:
        return Proof((), 1, reason)
    return Proof(tuple(proven), most, "its rows do not depend on each other", tuple(seconds))


class _Trial:
    """One format of the example, alone and in company."""

    def __init__(self, score: Score, example: Rows, ends: float, clock: Callable[[], float]) -> None:
        self._score = score
        self._example = example
        self._ends = ends
        self._clock = clock
        self.reason = ""
        self.seconds: list[tuple[int, float]] = []

    def run(self) -> int:
        """The largest size at which the answers agree; 1 with ``reason`` set when they never do."""
        known = self._alone()
        if known is None:
            return 1
        proven = 1
        for size in SIZES:
            if proven > 1 and self._too_slow(size):
                self.reason = f"more than {proven} rows take too long to try"
                break
            for turn in (1, -1):
                chosen = [known[at % len(known)] for at in range(size)][::turn]
                pieces = self._ask([row for row, _ in chosen])
                expected = [answer for _, answer in chosen]
                if pieces != expected:
                    self.reason = (
                        "the last digits of its answers depend on how many rows it is given (SERVERY_BATCHING=on "
                        "accepts that)"
                        if pieces is not None and _close(pieces, expected)
                        else f"{size} rows together are not answered as each of them is alone"
                    )
                    return 1 if proven == 1 or pieces is not None else proven
            proven = size
        return proven

    def _alone(self) -> Optional[list[tuple[Rows, bytes]]]:
        known: list[tuple[Rows, bytes]] = []
        for row in _variations(self._example):
            # At least twice two: the second and the repetition of the first say the most.
            if len(known) >= 2 and self._clock() > self._ends - BUDGET_SECONDS / 2:
                break
            answer = self._ask([row])
            if answer is not None:
                known.append((row, answer[0]))
            elif not known:
                self.reason = "its input example is not answered with one prediction a row"
                return None
        if len(known) < 2:
            self.reason = "its input example has one row, which could not be varied"
            return None
        if self._ask([known[0][0]]) != [known[0][1]]:
            self.reason = "it does not answer the same row the same way twice"
            return None
        return known

    def _ask(self, parts: list[Rows]) -> Optional[list[bytes]]:
        began = self._clock()
        status, body = self._score(rows_of.join(parts))
        self.seconds.append((len(parts), self._clock() - began))
        if status != 200:
            return None
        try:
            return rows_of.split(body, [part.length for part in parts])
        except ValueError:
            return None

    def _too_slow(self, size: int) -> bool:
        count, seconds = max(self.seconds[-2:])
        return self._clock() + 2 * seconds * size / count > self._ends


def _close(some: list[bytes], others: list[bytes]) -> bool:
    return all(_is_close(json.loads(one), json.loads(other)) for one, other in zip(some, others))


def _is_close(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_close(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_close, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE)
    return bool(one == other)


def example_of(metadata: Any, model_path: str) -> Optional[Rows]:
    """The rows to try: those of the example the model was logged with, else rows made up by its signature."""
    logged = _logged(metadata, model_path)
    if logged is not None:
        return logged
    schema = metadata.get_input_schema()
    return None if schema is None else _made_up(schema)


def _logged(metadata: Any, model_path: str) -> Optional[Rows]:
    information = getattr(metadata, "saved_input_example_info", None) or {}
    name = information.get("serving_input_path")
    if not name:
        return None
    return rows_of.read(Path(model_path, name).read_bytes())


def _made_up(schema: Any) -> Optional[Rows]:
    """Two rows of numbers, for a signature that asks for nothing else."""
    if schema.is_tensor_spec():
        return _made_up_arrays(schema)
    types = [str(getattr(type_, "name", "")) for type_ in schema.input_types()]
    values = [_NUMBERS.get(type_) for type_ in types]
    if not types or None in values:
        return None
    names = schema.input_names() if schema.has_input_names() else list(range(len(types)))
    data = [[pair[at] for pair in values if pair] for at in (0, 1)]
    return rows_of.read(json.dumps({SPLIT: {"columns": names, "data": data}}).encode())


def _made_up_arrays(schema: Any) -> Optional[Rows]:
    columns: dict[str, Any] = {}
    for spec in schema.inputs:
        shape = tuple(spec.shape)
        size = 1
        for length in shape[1:]:
            size *= length
        if spec.type.kind not in "fiu" or shape[:1] != (-1,) or not 0 < size <= _LARGEST_EXAMPLE_ITEM:
            return None
        make = float if spec.type.kind == "f" else int
        columns[spec.name or ""] = [_filled(shape[1:], make(number)) for number in (1, 2)]
    inputs = columns if schema.has_input_names() else columns.get("")
    return rows_of.read(json.dumps({INPUTS: inputs}).encode())


_NUMBERS: dict[str, tuple[Any, Any]] = {
    "double": (0.5, 1.5),
    "float": (0.5, 1.5),
    "integer": (1, 2),
    "long": (1, 2),
    "boolean": (True, False),
}


def _filled(shape: tuple[int, ...], value: Any) -> Any:
    return [_filled(shape[1:], value) for _ in range(shape[0])] if shape else value


def _variations(example: Rows) -> list[Rows]:
    """Single rows: those of the example, then the same with other numbers."""
    singles = [_row(example, at) for at in range(min(example.length, MOST_ALONE // 2))]
    varied = [_with_values(singles[0], factor) for factor in _FACTORS]
    distinct: list[Rows] = []
    for row in (*singles, *varied):
        if all(row.values != other.values for other in distinct):
            distinct.append(row)
    return distinct


def _row(rows: Rows, at: int) -> Rows:
    if isinstance(rows.values, dict):
        values: Any = {name: [column[at]] for name, column in rows.values.items()}
    else:
        values = [rows.values[at]]
    return rows._replace(values=values, length=1)


def _with_values(row: Rows, factor: float) -> Rows:
    return row._replace(values=_scaled(row.values, factor))


def _scaled(value: Any, factor: float) -> Any:
    if isinstance(value, dict):
        return {name: _scaled(item, factor) for name, item in value.items()}
    if isinstance(value, list):
        return [_scaled(item, factor) for item in value]
    if isinstance(value, float):
        return value * factor + 0.25
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value * factor) + 1
    return value


def _forms(example: Rows) -> list[Rows]:
    """The example in its own format and in the others that can say the same."""
    records = _as_records(example)
    if records:
        names = list(records[0])
        forms = [
            example._replace(format=SPLIT, values=[list(r.values()) for r in records], columns=names),
            example._replace(format=RECORDS, values=records, columns=None),
            example._replace(format=INSTANCES, values=records, columns=None),
            example._replace(
                format=INPUTS, values={name: [r[name] for r in records] for name in names}, columns=None
            ),
        ]
    elif isinstance(example.values, list) and example.format in (INSTANCES, INPUTS):
        forms = [example._replace(format=name) for name in (INSTANCES, INPUTS)]
    else:
        forms = []
    return [example, *(form for form in forms if form.format != example.format)]


def _as_records(example: Rows) -> list[dict[str, Any]]:
    """The rows as ``{name: value}``; empty when columns have no names."""
    if example.format == SPLIT:
        return [dict(zip(example.columns, row)) for row in example.values] if example.columns else []
    if isinstance(example.values, dict):
        return [{name: column[at] for name, column in example.values.items()} for at in range(example.length)]
    return example.values if all(isinstance(row, dict) for row in example.values) else []
