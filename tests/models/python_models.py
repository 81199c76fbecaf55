"""The zoo's own Python models: each shows one way a prediction can look, or go wrong.

They are pickled by value (see ``zoo.log``), so the model's environment needs nothing of this repository.
"""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2
from mlflow.pyfunc import PythonModel, PythonModelContext


class RepeatText(PythonModel):
    """Takes inference parameters of every kind: number, text, flag and list."""

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[str]:
        chosen = params or {}
        text = model_input["text"].str.upper() if chosen.get("shout") else model_input["text"]
        joined = chosen.get("separator", " ").join
        ending = "".join(chosen.get("endings", []))
        return [joined([one] * chosen.get("times", 1)) + ending for one in text]


class FrameOutput(PythonModel):
    """Answers a DataFrame with a column of each common type and an index of its own."""

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame) -> pd.DataFrame:
        x = model_input["x"]
        return pd.DataFrame(
            {"twice": x * 2, "whole": x.astype("int64"), "big": x > 1, "text": x.astype(str)},
            index=[f"row {i}" for i in range(len(x))],
        )


class SeriesOutput(PythonModel):
    """Answers a named Series."""

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame) -> pd.Series[float]:
        return model_input["x"].rename("half") / 2


class DictOutput(PythonModel):
    """Answers a dictionary that holds NumPy values at several depths."""

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame) -> dict[str, Any]:
        x = model_input["x"].to_numpy()
        return {
            "mean": x.mean(),
            "count": np.int32(len(x)),
            "any_big": bool((x > 1).any()),
            "squares": x**2,
            "nested": {"first": x[0] if len(x) else None, "text": "ünïcode ✓"},
        }


class TextOutput(PythonModel):
    """Answers one string for the whole request."""

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame) -> str:
        return f'{len(model_input)} rows, "quoted" and ünïcode ✓'


class NextDay(PythonModel):
    """Takes datetimes, answers datetimes and what it understood of them."""

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame) -> pd.DataFrame:
        when = pd.to_datetime(model_input["when"])
        return pd.DataFrame(
            {
                "next_day": when + pd.Timedelta(days=1),
                "weekday": when.dt.day_name(),
                "type": str(model_input["when"].dtype),
            }
        )


class OptionalColumns(PythonModel):
    """Says which of its optional columns it was given, and as what type."""

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame) -> list[dict[str, Any]]:
        note = model_input["note"] if "note" in model_input else pd.Series([None] * len(model_input))
        weight = model_input["weight"].dtype if "weight" in model_input else "absent"
        return [
            {"x": x, "note": None if pd.isna(n) else n, "weight": str(weight)}
            for x, n in zip(model_input["x"], note, strict=True)
        ]


class DescribeInput(PythonModel):
    """No signature: says what MLflow made of the body."""

    def predict(
        self, context: PythonModelContext, model_input: Any, params: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        if isinstance(model_input, pd.DataFrame):
            types = {str(name): str(dtype) for name, dtype in model_input.dtypes.items()}
            return {"type": "DataFrame", "dtypes": types, "rows": len(model_input), "params": params}
        return {"type": type(model_input).__name__, "repr": repr(model_input), "params": params}


class NamedTensors(PythonModel):
    """Takes two tensors by name, answers one of another shape."""

    def predict(self, context: PythonModelContext, model_input: dict[str, np.ndarray]) -> dict[str, Any]:
        left, right = model_input["left"], model_input["right"]
        return {"product": left @ right.T, "shape": list(left.shape), "dtype": str(left.dtype)}


class NestedTypes(PythonModel):
    """Takes lists and objects in its columns."""

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame) -> list[Any]:
        return [
            {"city": row["address"]["city"], "total": sum(row["amounts"])}
            for row in model_input.to_dict(orient="records")
        ]


class NotFinite(PythonModel):
    """Answers NaN and infinities: in an array, a frame or nested, as asked."""

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame) -> Any:
        x = model_input["x"].to_numpy()
        with np.errstate(all="ignore"):
            values = np.concatenate([x / 0.0, [np.nan, np.inf, -np.inf]])
        match str(model_input["as"].iloc[0]):
            case "array":
                return values
            case "frame":
                return pd.DataFrame({"v": values, "missing": None})
            case _:
                return {"v": float("nan"), "deep": [{"w": float("-inf")}]}


class Raises(PythonModel):
    """Raises the exception it is asked for."""

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame) -> Any:
        match str(model_input["kind"].iloc[0]):
            case "value":
                raise ValueError("the model does not like this row")
            case "key":
                return model_input["there is no such column"]
            case "zero":
                return 1 // 0
            case "chained":
                try:
                    raise OSError("disk on fire")
                except OSError as error:
                    raise RuntimeError("could not predict") from error
            case "unprintable":
                raise _UnprintableError
            case _:
                return ["fine"] * len(model_input)


class _UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this works")


class RaisesMlflow(PythonModel):
    """Raises an MlflowException with the error code it is asked for."""

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame) -> Any:
        code = str(model_input["code"].iloc[0])
        if code == "fine":
            return ["fine"] * len(model_input)
        raise MlflowException(
            f"the model answers {code}", error_code=getattr(databricks_pb2, code), hint="try another row"
        )


class NotSerialisable(PythonModel):
    """Answers values JSON has no words for."""

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame) -> Any:
        match str(model_input["kind"].iloc[0]):
            case "object":
                return [object()]
            case "set":
                return {1, 2, 3}
            case "complex":
                return [1 + 2j]
            case "bytes":
                return [b"bytes become base64"]
            case "generator":
                return (x for x in range(3))
            case "keys":
                return {("a", "b"): 1}
            case "surrogate":
                return ["\ud800"]
            case "none":
                return None
            case _:
                return ["fine"]


class Misbehaves(PythonModel):
    """Does to its process what it is told: for tests of isolation and lifecycle.

    ``kind`` of the first row: ``exit`` and ``raise`` do that, ``sleep:<seconds>`` waits first, ``share:<bytes>``
    fills so much shared memory and holds it, ``wait:<path>`` makes the file ``<path>.begun`` and waits for
    ``<path>``. The answer to each row is the process id, the version the model was built as and ``kind`` itself; for
    ``environment`` also the environment variables.

    A model that was built with ``at_load`` does that when it is loaded; one with ``at_predict`` does that to every
    request, but for those of kind ``spared``. With the environment variable ``HOLD_LOADS`` each process that loads it
    adds its id to the file ``<HOLD_LOADS>.pids``, and waits for ``<HOLD_LOADS>`` if another one came before.
    """

    def __init__(self, version: str = "1", at_load: str = "", at_predict: str = "", spared: str = "") -> None:
        self.version = version
        self.at_load = at_load
        self.at_predict = at_predict
        self.spared = spared
        self.made_by = os.getpid()

    def load_context(self, context: PythonModelContext) -> None:
        if "HOLD_LOADS" in os.environ:
            released = Path(os.environ["HOLD_LOADS"])
            pids = Path(f"{released}.pids")
            with pids.open("a") as file:
                file.write(f"{os.getpid()}\n")
            first = pids.read_text().split()[0] == str(os.getpid())
            while not first and not released.exists():
                time.sleep(0.01)
        self._do_by_habit(self.at_load)

    def _do_by_habit(self, kind: str) -> None:
        if os.getpid() != self.made_by:  # MLflow tries the example when the model is logged
            self._do(kind)

    def _do(self, kind: str) -> None:
        if kind == "exit":
            os._exit(3)
        if kind == "raise":
            raise ValueError("the model does not like this row")

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame) -> list[dict[str, Any]]:
        kind = str(model_input["kind"].iloc[0])
        self._do(kind)
        if kind != self.spared:
            self._do_by_habit(self.at_predict)
        if kind.startswith("sleep:"):
            time.sleep(float(kind.removeprefix("sleep:")))
        if kind.startswith("wait:"):
            released = Path(kind.removeprefix("wait:"))
            Path(f"{released}.begun").touch()
            while not released.exists():
                time.sleep(0.01)
        if kind.startswith("share:"):
            shared = mmap.mmap(-1, int(kind.removeprefix("share:")))
            for at in range(0, len(shared), mmap.PAGESIZE):
                shared[at] = 1
            time.sleep(600)
        answer: dict[str, Any] = {"pid": os.getpid(), "version": self.version}
        if kind == "environment":
            answer["environment"] = dict(os.environ)
        return [{**answer, "kind": kind} for kind in model_input["kind"]]


class RevealEnvironment(PythonModel):
    """Answers the values of the environment variables it is asked for."""

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame) -> list[str]:
        return [os.environ.get(name, "") for name in model_input["name"]]


class CurrentUser(PythonModel):
    """Asks the platform who it is, with a client that nobody configured, and tries to make itself a token."""

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame) -> list[str]:
        from databricks.sdk import WorkspaceClient
        from databricks.sdk.errors import PermissionDenied

        client = WorkspaceClient()
        try:
            token = client.tokens.create(comment="for ever").token_info
            outcome = f"has token {token.token_id if token else ''}"
        except PermissionDenied:
            outcome = "has no token"
        return [str(client.current_user.me().user_name), outcome]
