"""Make the table of a body of numbers as MLflow makes it, in a quarter of the time.

MLflow builds a DataFrame out of rows and then converts it column by column, which for a short table takes as long as
many a model. Where the signature asks for nothing but named columns of doubles, and the body brings numbers for each
of them, the outcome is known: it is built at once. That this MLflow and this pandas would have made the very same is
checked when the model is loaded; everything else is left to MLflow.
"""

from __future__ import annotations

import json
from typing import Any, Callable, NamedTuple, Optional

from servery_runner import enforcement, rows
from servery_runner.rows import NUMBER, RECORDS, SPLIT, Rows

FORMATS = (SPLIT, RECORDS)
MOST_ORDERS = 64
"""Of column names, that are remembered."""

Decode = Callable[[bytes], Any]
"""What MLflow gives the model for a JSON body."""


class Table(NamedTuple):
    """A DataFrame, and whether MLflow's conversion to the signature would leave it as it is."""

    frame: Any
    conforms: bool


class Tables:
    """Tables of one model's signature."""

    def __init__(self, names: list[str]) -> None:
        import numpy
        import pandas

        self.names = frozenset(names)
        self.in_order: Optional[tuple[str, ...]] = None
        """The signature's names, when a table that has them in this order conforms."""
        self._array = numpy.array
        self._frame = pandas.DataFrame
        self._index = pandas.Index
        self._indexes: dict[tuple[str, ...], Any] = {}
        """By the names in a body's order: making one takes longer than all the rest."""

    def of(self, parts: list[Rows]) -> Optional[Table]:
        """The table of the rows of all parts, which are of one kind; None when MLflow should make it."""
        first = parts[0]
        names = self._columns(first)
        if names is None:
            return None
        if first.format == SPLIT:
            columns = zip(*(row for part in parts for row in part.values))
        else:
            columns = zip(*(record.values() for part in parts for record in part.values))
        # As pandas puts the columns of a dict together: one block, each column in one piece.
        block = self._array(list(columns), "float64")
        order = tuple(names)
        numbers = self._index(list(range(block.shape[1]))) if first.numbered else None
        frame = self._frame(block.T, index=numbers, columns=self._index_of(order), copy=False)
        return Table(frame, order == self.in_order)

    def _index_of(self, names: tuple[str, ...]) -> Any:
        index = self._indexes.get(names)
        if index is None:
            if len(self._indexes) >= MOST_ORDERS:
                self._indexes.clear()
            index = self._indexes[names] = self._index(list(names))
        # A model may name it: not the one that is kept.
        return index[:]

    def _columns(self, part: Rows) -> Optional[list[str]]:
        """Names of the columns in the body's order, when they are those of the signature and hold numbers."""
        if part.format == SPLIT:
            names, types = part.columns, part.kind[1][1]
        elif part.format == RECORDS:
            names, types = [name for name, _ in part.kind[1][0]], [type_ for _, type_ in part.kind[1][0]]
        else:
            return None
        if names is None or any(type_ is not NUMBER for type_ in types) or frozenset(names) != self.names:
            return None
        return names


def of_signature(schema: Any, decode: Decode) -> Optional[Tables]:
    """The tables of a model with this signature; None where MLflow has to make them, or makes other ones."""
    if schema is None or schema.is_tensor_spec() or not schema.has_input_names():
        return None
    names = schema.input_names()
    if not names or any(getattr(type_, "name", "") != "double" for type_ in schema.input_types()):
        return None
    tables = Tables(names)
    if not all(_same(tables, body, decode) for body in _trials(names)):
        return None
    if enforcement.install() and all(_conforms(tables, body, schema) for body in _trials(names, names)):
        tables.in_order = tuple(names)
    return tables


def _trials(names: list[str], *orders: list[str]) -> list[bytes]:
    """Bodies with these columns, in these orders: theirs and backwards when none is given."""
    wanted = [[0.5 + at for at, _ in enumerate(names)], [at for at, _ in enumerate(names)]]
    orders = orders or (names, names[::-1])
    bodies = [{SPLIT: {"columns": order, "data": data}} for order in orders for data in (wanted, wanted[1:])]
    numbered = [{SPLIT: {"columns": order, "data": wanted, "index": [0, 1]}} for order in orders]
    records = [{RECORDS: [dict(zip(order, row)) for row in wanted]} for order in orders]
    return [json.dumps(body).encode() for body in (*bodies, *numbered, *records)]


def _same(tables: Tables, body: bytes, decode: Decode) -> bool:
    import pandas.testing

    part = rows.read(body, tables.names)
    table = None if part is None else tables.of([part])
    if table is None:
        return False
    try:
        pandas.testing.assert_frame_equal(table.frame, decode(body), check_exact=True)
    except AssertionError:
        return False
    return True


def _conforms(tables: Tables, body: bytes, schema: Any) -> bool:
    part = rows.read(body, tables.names)
    table = None if part is None else tables.of([part])
    return table is not None and enforcement.changes_nothing(table.frame, schema)
