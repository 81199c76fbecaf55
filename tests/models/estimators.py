"""How the models of the zoo are made: example rows, training and signatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

IRIS = pd.DataFrame(
    [[5.1, 3.5, 1.4, 0.2], [6.2, 2.9, 4.3, 1.3], [7.7, 2.6, 6.9, 2.3]],
    columns=["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"],
)
HOUSES = pd.DataFrame({"rooms": [3, 5, 1], "area": [70.5, 120.0, 30.25], "garden": [True, True, False]})
PASSENGERS = pd.DataFrame(
    {"sex": ["female", "male", "male"], "deck": ["A", "C", "B"], "age": [29.0, 41.5, 7.0]}
)
MOMENTS = pd.DataFrame(
    {"when": pd.to_datetime(["2024-02-28 23:59:59.500", "2023-12-31 00:00:00.250"]), "id": [1, 2]}
)
OPTIONAL = pd.DataFrame({"x": [1.0, 2.0], "note": ["a", "b"], "weight": [0.5, 1.5]})
NESTED = pd.DataFrame({"address": [{"city": "Aachen"}, {"city": "Bonn"}], "amounts": [[1.0, 2.0], [3.5]]})


def iris_classifier() -> Mapping[str, Any]:
    """A classifier on named columns, saved in skops format with an input example."""
    from mlflow.models import infer_signature
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    features, species = load_iris(return_X_y=True, as_frame=True)
    model = LogisticRegression(max_iter=1000).fit(features, species)
    return {
        "sk_model": model,
        "signature": infer_signature(features, model.predict(features)),
        "input_example": IRIS,
    }


def house_prices() -> Mapping[str, Any]:
    """A regressor on an integer, a double and a boolean column."""
    from mlflow.models import infer_signature
    from sklearn.ensemble import RandomForestRegressor

    prices = [200.0, 410.5, 90.0]
    model = RandomForestRegressor(n_estimators=5, random_state=0).fit(HOUSES, prices)
    return {
        "sk_model": model,
        "signature": infer_signature(HOUSES, model.predict(HOUSES)),
        "input_example": HOUSES,
        "serialization_format": "cloudpickle",
    }


def passengers() -> Mapping[str, Any]:
    """A pipeline that encodes text columns and a category, and answers text labels."""
    from mlflow.models import infer_signature
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    rows = PASSENGERS.assign(deck=PASSENGERS["deck"].astype("category"))
    columns = ColumnTransformer(
        [
            ("text", OneHotEncoder(handle_unknown="ignore"), ["sex", "deck"]),
            ("number", StandardScaler(), ["age"]),
        ]
    )
    model = Pipeline([("columns", columns), ("tree", DecisionTreeClassifier(random_state=0))])
    model.fit(rows, ["survived", "lost", "survived"])
    return {
        "sk_model": model,
        "signature": infer_signature(rows, model.predict(rows)),
        "input_example": PASSENGERS,
        "serialization_format": "cloudpickle",
    }


def lightgbm_classifier() -> Mapping[str, Any]:
    """A gradient-boosted classifier of another library."""
    from lightgbm import LGBMClassifier
    from mlflow.models import infer_signature
    from sklearn.datasets import load_iris

    features, species = load_iris(return_X_y=True, as_frame=True)
    model = LGBMClassifier(n_estimators=5, num_leaves=4, n_jobs=1, verbose=-1, random_state=0)
    model.fit(features, species)
    return {
        "lgb_model": model,
        "signature": infer_signature(features, model.predict(features)),
        "input_example": IRIS,
    }


def tensor_regressor() -> Mapping[str, Any]:
    """A model whose signature is one unnamed tensor."""
    import numpy as np
    from mlflow.models import infer_signature
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline

    pixels = np.random.default_rng(0).random((20, 4))
    model = make_pipeline(PCA(2, random_state=0), LinearRegression()).fit(pixels, pixels @ np.ones((4, 2)))
    return {
        "sk_model": model,
        "signature": infer_signature(pixels, model.predict(pixels)),
        "input_example": pixels[:2],
        "serialization_format": "cloudpickle",
    }


def older_packages() -> Mapping[str, Any]:
    """A model from code that names older packages and reports what it runs on."""
    from mlflow.models import infer_signature
    from tests.models import versions_model

    frame = pd.DataFrame({"x": [1.0]})
    return {
        "python_model": versions_model.__file__,
        "signature": infer_signature(frame),
        "input_example": frame,
        "pip_requirements": versions_model.REQUIREMENTS,
    }


def python_model(
    name: str,
    frame: pd.DataFrame | None,
    *,
    params: Mapping[str, Any] | None = None,
    optional: Sequence[str] = (),
    tensors: Mapping[str, tuple[str, tuple[int, ...]]] | None = None,
    **construct: Any,
) -> Mapping[str, Any]:
    """A model of ``python_models``; the signature is that of ``frame`` or ``tensors``, or there is none."""
    import numpy as np
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types import ColSpec, Schema, TensorSpec
    from tests.models import python_models

    kind = getattr(python_models, "".join(word.capitalize() for word in name.split("_")))
    made: dict[str, Any] = {"python_model": kind(**construct)}
    if tensors is not None:
        specs = [TensorSpec(np.dtype(dtype), shape, tensor) for tensor, (dtype, shape) in tensors.items()]
        made["signature"] = ModelSignature(inputs=Schema(specs))
    elif frame is not None:
        inferred = infer_signature(frame, params=dict(params) if params else None)
        columns = [
            ColSpec(column.type, column.name, required=column.name not in optional)
            for column in inferred.inputs.inputs
        ]
        made["signature"] = ModelSignature(inputs=Schema(columns), params=inferred.params)
        made["input_example"] = frame
    return made
