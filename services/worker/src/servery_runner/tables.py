"""Make the table of a body of numbers as MLflow makes it, in a quarter of the time.

MLflow builds a DataFrame out of rows and then converts it column by column, which for a short table takes as long as
many a model. Where the signature asks for nothing but named columns of doubles, and the body brings numbers for each
of them, the outcome is known: it is built at once. That this MLflow and this pandas would have made the very same is
checked when the model is loaded; everything else is left to MLflow.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Optional

from servery_runner import rows
from servery_runner.rows import NUMBER, RECORDS, SPLIT, Rows

FORMATS = (SPLIT, RECORDS)

Decode = Callable[[bytes], Any]
"""What MLflow gives the model for a JSON body."""


class Tables:
    """Tables of one model's signature."""

    def __init__(self, names: list[str]) -> None:
        import numpy
        import pandas

        self.names = frozenset(names)
        self._array = numpy.array
        self._frame = pandas.DataFrame

    def of(self, parts: list[Rows]) -> Any:
        """The table of the rows of all parts, which are of one kind; None when MLflow should make it."""
        first = parts[0]
        names = self._columns(first)
        if names is None:
            return None
        if first.format == SPLIT:
            columns = zip(*(row for part in parts for row in part.values))
        else:
            columns = zip(*(record.values() for part in parts for record in part.values))
        return self._frame({name: self._array(column, "float64") for name, column in zip(names, columns)})

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
    return tables if all(_same(tables, body, decode) for body in _trials(names)) else None


def _trials(names: list[str]) -> list[bytes]:
    wanted = [[0.5 + at for at, _ in enumerate(names)], [at for at, _ in enumerate(names)]]
    backwards = names[::-1]
    bodies = [
        {SPLIT: {"columns": order, "data": data}}
        for order in (names, backwards)
        for data in (wanted, wanted[1:])
    ]
    records = [{RECORDS: [dict(zip(order, row)) for row in wanted]} for order in (names, backwards)]
    return [json.dumps(body).encode() for body in (*bodies, *records)]


def _same(tables: Tables, body: bytes, decode: Decode) -> bool:
    import pandas.testing

    part = rows.read(body, tables.names)
    table = None if part is None else tables.of([part])
    if table is None:
        return False
    try:
        pandas.testing.assert_frame_equal(table, decode(body), check_exact=True)
    except AssertionError:
        return False
    return True
