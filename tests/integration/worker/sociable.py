"""Models that look beyond a row, or keep a state, for some bodies only: their input examples do not show it.

Each comes with bodies whose answers would change with their company, and with others that may be joined.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.pyfunc import PythonModel

Predict = Callable[[Any, dict[str, Any]], Any]


class Model(PythonModel):
    def __init__(self, predict: Predict) -> None:
        self._predict = predict

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        return self._predict(model_input, params or {})


@dataclass(frozen=True)
class Sociable:
    """A model, and bodies to ask it: each in the company of the others."""

    name: str
    predict: Predict
    example: Any
    bodies: tuple[bytes, ...]
    signature: ModelSignature | bool | None = None
    """False: none."""
    joins: bool = True
    """Whether some of the bodies are joined."""

    def save(self, path: Path) -> None:
        mlflow.pyfunc.save_model(
            path,
            python_model=Model(self.predict),
            input_example=self.example,
            signature=self.signature,
            pip_requirements=["mlflow"],
        )


def body(name: str, content: Any, **more: Any) -> bytes:
    return json.dumps({name: content, **more}).encode()


def split(column: str, *values: Any, **more: Any) -> bytes:
    return body("dataframe_split", {"columns": [column], "data": [[value] for value in values], **more})


NAN = float("nan")
NUMBERS = pd.DataFrame({"x": [1.0, 2.0]})
WITH_GAPS = (
    *(split("x", value) for value in (1.0, 100.0, NAN, 3, None)),
    split("x", NAN, 7.0),
    b'{"dataframe_split": {"columns": ["x"], "data": [[1e999]]}}',
    *(body("dataframe_records", [{"x": value}]) for value in (NAN, 100.0, 5.0)),
    *(body("instances", [{"x": value}]) for value in (NAN, 100.0, 5.0)),
    *(body("inputs", {"x": [value]}) for value in (NAN, 100.0, 5.0)),
)


def filled(table: pd.DataFrame, params: dict[str, Any]) -> Any:
    return table["x"].fillna(table["x"].mean()).fillna(0.0).to_numpy()


def carried_on(table: pd.DataFrame, params: dict[str, Any]) -> Any:
    return table["x"].ffill().fillna(-1.0).to_numpy()


def clipped(table: pd.DataFrame, params: dict[str, Any]) -> Any:
    x = table["x"]
    return x.clip(upper=x.max() - 1.0).to_numpy() if np.isinf(x).any() else x.to_numpy()


def padded(table: pd.DataFrame, params: dict[str, Any]) -> Any:
    return (table["text"].str.len() / table["text"].str.len().max()).to_numpy()


def one_hot(table: pd.DataFrame, params: dict[str, Any]) -> Any:
    return pd.get_dummies(table["text"]).astype(float).to_numpy().tolist()


def any_urgent(table: pd.DataFrame, params: dict[str, Any]) -> Any:
    return [bool(table["urgent"].any())] * len(table)


def softmax(array: Any, params: dict[str, Any]) -> Any:
    powers = np.exp(np.asarray(array, dtype=float))
    return powers / powers.sum(axis=-1, keepdims=True)


def by_number(table: pd.DataFrame, params: dict[str, Any]) -> Any:
    return table.index.to_numpy() // 1000 + table["x"].to_numpy()


def sampled(table: pd.DataFrame, params: dict[str, Any]) -> Any:
    noise = np.random.default_rng(params.get("seed", 0)).normal(size=len(table))
    return table["x"].to_numpy() + params.get("temperature", 0.0) * noise


def counting_on_request(table: pd.DataFrame, params: dict[str, Any]) -> Any:
    if not params.get("count"):
        return table["x"].to_numpy()
    return [len(table)] * len(table)


def by_shape(array: Any, params: dict[str, Any]) -> Any:
    """Row-wise for arrays of two dimensions; of more, the first row decides."""
    array = np.asarray(array, dtype=float)
    return array.sum(axis=1) if array.ndim == 2 else np.broadcast_to(array[0], array.shape).tolist()


MODELS = (
    Sociable("fills gaps with the mean", filled, NUMBERS, WITH_GAPS),
    Sociable("fills gaps with the row before", carried_on, NUMBERS, WITH_GAPS),
    Sociable("fills gaps, example has one", filled, pd.DataFrame({"x": [NAN, 1.0, 2.0]}), WITH_GAPS),
    Sociable("clips infinities", clipped, NUMBERS, WITH_GAPS),
    Sociable(
        "pads to the longest text",
        padded,
        pd.DataFrame({"text": ["hello"]}),
        (split("text", "a"), split("text", "aaaa"), body("dataframe_records", [{"text": "aa"}])),
        joins=False,
    ),
    Sociable(
        "pads to the longest text, beside a number",
        padded,
        pd.DataFrame({"text": ["hello", "world"], "k": [1.0, 2.0]}),
        tuple(body("dataframe_records", [{"text": text, "k": 1.0}]) for text in ("a", "aaaa")),
        joins=False,
    ),
    Sociable(
        "one hot",
        one_hot,
        pd.DataFrame({"text": ["a"]}),
        (split("text", "a"), split("text", "b")),
        joins=False,
    ),
    Sociable(
        "any flag",
        any_urgent,
        pd.DataFrame({"urgent": [True]}),
        (split("urgent", True), split("urgent", False)),
        joins=False,
    ),
    Sociable(
        "softmax over the last axis",
        softmax,
        np.array([[1.0, 2.0, 3.0], [2.0, 1.0, 0.0]]),
        (
            body("instances", [1.0, 2.0]),
            body("instances", [3.0, 4.0]),
            body("inputs", [1.0]),
            body("inputs", [3.0]),
            body("inputs", [[1.0, 2.0]]),
            body("instances", [[1.0, 2.0, 3.0]]),
            body("instances", [[3.0, 2.0, 3.0]]),
        ),
        signature=False,
    ),
    Sociable(
        "looks at the first of blocks",
        by_shape,
        np.array([[1.0, 2.0], [2.0, 1.0]]),
        (
            body("inputs", [[[1.0, 2.0]]]),
            body("inputs", [[[3.0, 4.0]]]),
            body("inputs", [[5.0, 6.0]]),
            body("inputs", [[7.0, 8.0]]),
        ),
        signature=False,
    ),
    Sociable(
        "row numbers",
        by_number,
        NUMBERS,
        (
            split("x", 1.0, index=[5000]),
            split("x", 1.0, index=[9000]),
            split("x", 1.0, index=["a"]),
            split("x", 1.0, index=[0]),
            split("x", 2.0, 3.0, index=[0, 1]),
            split("x", 1.0, 2.0, index=[1, 0]),
            split("x", 1.0),
            split("x", 2.0),
        ),
    ),
    Sociable(
        "samples as its params say",
        sampled,
        NUMBERS,
        (
            *(split("x", 1.0), split("x", 2.0)),
            *(
                body(
                    "dataframe_split",
                    {"columns": ["x"], "data": [[value]]},
                    params={"temperature": 1.0, "seed": 42},
                )
                for value in (1.0, 1.0, 2.0)
            ),
        ),
        signature=infer_signature(NUMBERS, np.array([1.0]), params={"temperature": 0.0, "seed": 0}),
    ),
    Sociable(
        "counts when its params say so",
        counting_on_request,
        (NUMBERS, {"count": False}),
        (
            *(split("x", 1.0), split("x", 2.0)),
            *(body("dataframe_records", [{"x": value}], params={"count": True}) for value in (1.0, 2.0)),
        ),
        signature=infer_signature(NUMBERS, np.array([1.0]), params={"count": False}),
    ),
)
