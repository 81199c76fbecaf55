"""Show that a model is row-wise: it answers rows that come together as it answers each of them alone.

Nothing a model says of itself proves that. Its input example (or, without one, rows made up by its signature) is
varied and predicted row by row and in company, in sizes up to the most rows that will ever be joined; every answer
has to be the same to the last byte. A model that looks at the whole of what it is given (a mean, a rank, a count, row
numbers, the longest text), keeps a state or rolls dice gives itself away here, and so does one whose last digits
depend on how many rows it gets.

What is shown holds for the kind of body it was shown with (``Rows.kind``: format, names, types, shapes) and for no
other: the same model may be given a table, an array or a dict, and treat each in its own way. So the example is tried
in every way clients are likely to send its columns, and only bodies of the kinds that were tried are joined.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, Optional

from servery_runner import rows as rows_of
from servery_runner.rows import INPUTS, INSTANCES, RECORDS, SPLIT, Rows

MOST_ROWS = 128
"""Rows joined into one prediction at most."""
SIZES = (2, 8, 32, MOST_ROWS)
BUDGET_SECONDS = 3.0
"""A slow model is shown to be row-wise up to the size that could be tried by then."""
MOST_ALONE = 10
FEW_ALONE = 5
"""Of a kind that is tried after the example's own."""
MOST_KINDS = 32
CLOSE = 1e-5
"""What single precision can differ by when sums are added up in another order."""
_FACTORS = (0.5, -1.0, 2.0, 0.1, 7.0)
_LARGEST_EXAMPLE_ITEM = 16_384

Score = Callable[[bytes], "tuple[int, str]"]
"""Status and body of the answer to a JSON body."""
Read = Callable[[bytes], Optional[Rows]]
"""A body's rows as the model takes them."""


class Proof(NamedTuple):
    """What was found out about a model."""

    formats: tuple[str, ...]
    """Body formats with kinds that may be joined; empty: none."""
    max_rows: int
    reason: str
    """Why not, or why no further; for people."""
    seconds: tuple[tuple[int, float], ...] = ()
    """How long predictions took: (rows, seconds)."""
    kinds: Optional[dict[str, int]] = None
    """How many rows may be joined of each kind, by ``key``; None: ``max_rows`` of every kind."""

    def most(self, rows: Rows) -> int:
        """How many rows of this kind may be joined; 0: none."""
        if rows.format not in self.formats:
            return 0
        return self.max_rows if self.kinds is None else self.kinds.get(key(rows), 0)

    def head(self) -> dict[str, Any]:
        """As JSON for the worker, which keeps it for the next runner of this model."""
        return {
            "formats": list(self.formats),
            "max_rows": self.max_rows,
            "reason": self.reason,
            "seconds": [list(pair) for pair in self.seconds],
            "kinds": self.kinds,
        }

    @classmethod
    def from_head(cls, head: dict[str, Any]) -> Proof:
        """The inverse of ``head``."""
        return cls(
            tuple(head["formats"]),
            int(head["max_rows"]),
            str(head["reason"]),
            tuple((int(count), float(seconds)) for count, seconds in head["seconds"]),
            head["kinds"],
        )


OFF = Proof((), 1, "switched off with SERVERY_BATCHING=off")
DATES = Proof((), 1, "its signature has dates, whose format is guessed from the first one of a table")
COMMANDED = Proof(
    (),
    1,
    "its own code is sent text, and may do something else for a word nobody tried (SERVERY_BATCHING=on)",
)
FORCED = Proof(rows_of.FORMATS, MOST_ROWS, "switched on with SERVERY_BATCHING=on")


def key(rows: Rows) -> str:
    """What a kind is called in a proof: the kind itself is as long as the names of all columns."""
    return hashlib.blake2b(repr(rows.kind).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def prove(
    score: Score,
    example: Optional[Rows],
    read: Read = rows_of.read,
    clock: Callable[[], float] = time.monotonic,
) -> Proof:
    """Find out of which kinds, and up to how many rows, joined rows get the answers they get alone."""
    if example is None:
        return Proof((), 1, "it has no input example or signature whose rows could be tried")
    ends = clock() + BUDGET_SECONDS
    first = _Trial(score, read, example, ends, clock)
    if first.run() < 2:
        return Proof((), 1, first.reason)  # The example's own kind comes first and decides.
    proven = [first]
    others, further = _forms(example)
    for at, form in enumerate((*others, *further)):
        if len(proven) >= MOST_KINDS or (at >= len(others) and clock() > ends):
            break
        trial = _Trial(score, read, form, ends, clock, brief=True)
        if trial.run() > 1:
            proven.append(trial)
    return Proof(
        tuple(dict.fromkeys(trial.example.format for trial in proven)),
        max(trial.proven for trial in proven),
        "its rows do not depend on each other",
        tuple(chain.from_iterable(trial.seconds for trial in proven)),
        {
            trial.key: trial.proven for trial in reversed(proven)
        },  # Of two trials of one kind the first counts.
    )


class _Trial:
    """The example in one form, alone and in company. ``brief``: after another form was tried thoroughly."""

    def __init__(
        self,
        score: Score,
        read: Read,
        example: Rows,
        ends: float,
        clock: Callable[[], float],
        *,
        brief: bool = False,
    ) -> None:
        self._score = score
        self._read = read
        self._ends = ends
        self._clock = clock
        self._brief = brief
        self.example = example
        self.key = ""
        self.proven = 1
        """The largest size at which the answers agree; 1 with ``reason`` set when they never do."""
        self.reason = ""
        self.seconds: list[tuple[int, float]] = []

    def run(self) -> int:
        """Find out ``proven``."""
        known = self._alone()
        if known is not None:
            self._together(known)
        return self.proven

    def _together(self, known: list[tuple[Rows, bytes]]) -> None:
        for number, size in enumerate(SIZES):
            if self.proven > 1 and self._too_slow(size):
                self.reason = f"more than {self.proven} rows take too long to try"
                return
            for turn in (1, -1):
                if self._brief and size > 2 and turn != (-1) ** number:
                    continue
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
                    if pieces is not None:
                        self.proven = 1
                    return
            self.proven = size

    def _alone(self) -> Optional[list[tuple[Rows, bytes]]]:
        known: list[tuple[Rows, bytes]] = []
        rows = self._of_one_kind(_variations(self.example))
        if not rows:
            self.reason = "requests like its input example are never joined"
            return None
        self.key = key(rows[0])
        for row in rows:
            # At least twice two: the second and the repetition of the first say the most.
            if len(known) >= 2 and self._are_enough(known):
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
        self.reason = _missing(known)
        if self.reason:
            return None
        if not self._brief and self._ask([known[0][0]]) != [known[0][1]]:
            self.reason = "it does not answer the same row the same way twice"
            return None
        return known

    def _are_enough(self, known: list[tuple[Rows, bytes]]) -> bool:
        now = self._clock()
        if len(known) >= MOST_ALONE or now > self._ends:
            return True
        is_time = now > self._ends - BUDGET_SECONDS / 2 or (self._brief and len(known) >= FEW_ALONE)
        return is_time and not _missing(known)

    def _of_one_kind(self, rows: list[Rows]) -> list[Rows]:
        """Those that a request could bring, as they are read then."""
        found: list[Rows] = []
        for row in rows:
            part = self._read(rows_of.join([row]))
            if part is not None and (not found or part.kind == found[0].kind):
                found.append(part)
        return found

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
    try:
        content = json.loads(Path(model_path, name).read_bytes())
        table = content.get(SPLIT)
        if table is not None:
            # Rows with gaps are not joined; the others show what there is to show.
            table["data"] = [row for row in table["data"] if not any(map(_is_gap, row))]
            table.pop("index", None)
        # What is proven is proven for requests without params.
        content.pop("params", None)
    except (ValueError, TypeError, AttributeError, KeyError):
        return None
    return rows_of.read(json.dumps(content).encode())


def _is_gap(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


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
    """Single rows: those of the example, and its first one with other texts and flags, and with other numbers.

    They come in turns: of a slow model only the first of them are tried.
    """
    singles = [_row(example, at) for at in range(min(example.length, MOST_ALONE // 2))]
    first = singles[0]
    reworded = [first._replace(values=_reworded(first.values, way)) for way in range(len(_WORDINGS))]
    scaled = [first._replace(values=_scaled(first.values, factor)) for factor in _FACTORS]
    in_turns: Iterator[Optional[Rows]] = chain([first], *zip_longest(reworded, singles[1:], scaled))
    distinct: list[Rows] = []
    for row in in_turns:
        if row is not None and all(row.values != other.values for other in distinct):
            distinct.append(row)
    return distinct


def _row(rows: Rows, at: int) -> Rows:
    if isinstance(rows.values, dict):
        values: Any = {name: [column[at]] for name, column in rows.values.items()}
    else:
        values = [rows.values[at]]
    return rows._replace(values=values, length=1)


def _scaled(value: Any, factor: float) -> Any:
    """The same with other numbers."""
    if isinstance(value, dict):
        return {name: _scaled(item, factor) for name, item in value.items()}
    if isinstance(value, list):
        return [_scaled(item, factor) for item in value]
    if isinstance(value, float):
        return value * factor + 0.25
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value * factor) + 1
    return value


def _reworded(value: Any, way: int) -> Any:
    """The same with other texts, of other lengths, and the other flags."""
    if isinstance(value, dict):
        return {name: _reworded(item, way) for name, item in value.items()}
    if isinstance(value, list):
        return [_reworded(item, way) for item in value]
    if isinstance(value, str):
        return _WORDINGS[way](value)
    return not value if isinstance(value, bool) else value


_WORDINGS: tuple[Callable[[str], str], ...] = (
    lambda text: f"{text} {text}",
    lambda text: text[: (len(text) + 1) // 2],
    lambda text: text[::-1],
)


def _missing(known: list[tuple[Rows, bytes]]) -> str:
    """Why rows with these answers would show nothing; empty when they do."""
    cells = list(zip(*(_cells(row.values) for row, _ in known)))
    if any(len(set(cell)) < 2 for cell in cells):
        return "its input example has a column that could not be varied"
    if any(isinstance(cell[0], (str, bool)) for cell in cells) and len({answer for _, answer in known}) < 2:
        # Its numbers may be of no account. But texts made up here may be none that the model knows.
        return "it answers all rows of its input example the same, and other texts and flags too"
    return ""


def _cells(value: Any) -> Iterator[Any]:
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _cells(item)
    else:
        yield value


def _forms(example: Rows) -> tuple[list[Rows], list[Rows]]:
    """The example in the other forms that clients usually give it; then in those that are tried if there is time."""
    if example.format in (INSTANCES, INPUTS) and isinstance(example.values, list):
        lists = [example._replace(format=name) for name in (INSTANCES, INPUTS) if name != example.format]
    else:
        lists = []
    records = _as_records(example)
    if not records:
        return lists, []
    names = list(records[0])
    in_order = [{name: record[name] for name in sorted(names)} for record in records]
    others = [
        _as_split(example, records),
        _as_split(example, records)._replace(numbered=True),
        example._replace(format=RECORDS, values=records, columns=None),
        example._replace(format=INSTANCES, values=records, columns=None),
        example._replace(
            format=INPUTS, values={name: [r[name] for r in records] for name in names}, columns=None
        ),
    ]
    arrays = [list(record.values()) for record in records]
    further = [
        *(example._replace(format=name, values=arrays, columns=None) for name in (INSTANCES, INPUTS)),
        example._replace(format=INPUTS, values=records, columns=None),
    ]
    if sorted(names) != names:
        further.append(_as_split(example, in_order))
        further.append(example._replace(format=RECORDS, values=in_order, columns=None))
    if len(names) == 1:
        cells = [cell for [cell] in arrays]
        further += [example._replace(format=name, values=cells, columns=None) for name in (INSTANCES, INPUTS)]
    mine = (example.format, type(example.values), example.numbered)
    return [one for one in others if (one.format, type(one.values), one.numbered) != mine], further


def _as_split(example: Rows, records: list[dict[str, Any]]) -> Rows:
    rows = [list(record.values()) for record in records]
    return example._replace(format=SPLIT, values=rows, columns=list(records[0]))


def _as_records(example: Rows) -> list[dict[str, Any]]:
    """The rows as ``{name: value}``; empty when columns have no names."""
    if example.format == SPLIT:
        return [dict(zip(example.columns, row)) for row in example.values] if example.columns else []
    if isinstance(example.values, dict):
        return [{name: column[at] for name, column in example.values.items()} for at in range(example.length)]
    return example.values if all(isinstance(row, dict) for row in example.values) else []


def has_text(example: Rows) -> bool:
    """Whether any cell of the example is text."""
    return _any_text(example.values)


def _any_text(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_any_text, value.values()))
    return isinstance(value, str) or (isinstance(value, list) and any(map(_any_text, value)))
