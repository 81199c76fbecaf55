"""Spare MLflow the check of a table that was made to pass it.

``PyFuncModel.predict`` converts what it is given to the model's signature, column by column, which for a short table
takes a third of the whole prediction. A table that is as the signature wants it comes out as it went in: for those of
``tables`` this is checked when the model is loaded, with this MLflow and this pandas, and from then on the conversion
is left out. Everything else MLflow does to a prediction it still does.
"""

# The conversion is MLflow's own business: whether it is as expected is found out before anything depends on it.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import contextlib
import inspect
import threading
from typing import Any, Callable, Generator, Optional

_spared = threading.local()
"""``table``: the one this thread is about to predict."""
_installed: Optional[Callable[..., Any]] = None


def install() -> bool:
    """Make MLflow leave out what ``sparing`` says; False when this release checks in another way."""
    global _installed
    import mlflow.pyfunc

    original = getattr(mlflow.pyfunc, "_validate_prediction_input", None)
    if _installed is not None and original is _installed:
        return True
    if original is None or list(inspect.signature(original).parameters)[:3] != [
        "data",
        "params",
        "input_schema",
    ]:
        return False

    def validate(data: Any, params: Any, input_schema: Any, *others: Any, **named: Any) -> Any:
        spared = getattr(_spared, "table", None)
        if spared is not None and data is spared:
            # Once: the model may hand the table on to another model, whose signature is another one.
            _spared.table = None
            input_schema = None  # MLflow's way to say that there is nothing to convert to.
        return original(data, params, input_schema, *others, **named)

    mlflow.pyfunc._validate_prediction_input = validate
    _installed = validate
    return True


@contextlib.contextmanager
def sparing(table: Any) -> Generator[None, None, None]:
    """The next prediction of this very table, in this thread, converts nothing. None: all do."""
    _spared.table = table
    try:
        yield
    finally:
        _spared.table = None


def changes_nothing(table: Any, schema: Any) -> bool:
    """Whether MLflow's conversion leaves this table as it is, in memory too."""
    import pandas.testing
    from mlflow.models.utils import _enforce_schema

    try:
        converted: Any = _enforce_schema(table.copy(), schema)
        pandas.testing.assert_frame_equal(table, converted, check_exact=True)
    except Exception:
        return False
    return bool(table.to_numpy().strides == converted.to_numpy().strides)
