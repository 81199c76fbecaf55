"""The models that are measured."""

from pathlib import Path
from textwrap import dedent
from typing import Any

WAITING = """
import time
import mlflow
from mlflow.pyfunc import PythonModel

class Waiting(PythonModel):
    def predict(self, context, model_input, params=None):
        time.sleep({seconds})
        return [0] * len(model_input)

mlflow.models.set_model(Waiting())
"""

LENGTH = """
import mlflow
from mlflow.pyfunc import PythonModel

class Length(PythonModel):
    def predict(self, context, model_input, params=None):
        return [len(text) for text in model_input["text"]]

mlflow.models.set_model(Length())
"""


def register_iris(path: Path, name: str = "iris") -> None:
    """Train on iris, save to ``path`` and register."""
    import mlflow.sklearn
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    features, species = load_iris(return_X_y=True, as_frame=True)
    model = LogisticRegression(max_iter=1000).fit(features, species)
    logged = {"input_example": features.head(2), "pip_requirements": _requirements()}
    mlflow.sklearn.save_model(model, path, **logged)
    with mlflow.start_run():
        mlflow.sklearn.log_model(model, name="model", registered_model_name=name, **logged)


def register_waiting(directory: Path, seconds: float, name: str) -> None:
    """A model that waits for something else for so long, as one that calls a service does."""
    import pandas as pd

    code = WAITING.replace("{seconds}", str(seconds))
    _register(directory, name, code, pd.DataFrame({"x": [1.0, 2.0]}))


def register_length(directory: Path, path: Path, name: str) -> None:
    """A model that costs nothing beside its input; also saved to ``path``."""
    import pandas as pd

    _register(directory, name, LENGTH, pd.DataFrame({"text": ["a", "bc"]}), path)


def _register(directory: Path, name: str, code: str, example: Any, path: Path | None = None) -> None:
    import mlflow.pyfunc
    from mlflow.models import infer_signature

    file = directory / f"{name}.py"
    file.write_text(dedent(code))
    logged = {
        "python_model": str(file),
        "input_example": example,
        "signature": infer_signature(example, [0]),
        "pip_requirements": _requirements(),
    }
    if path is not None:
        mlflow.pyfunc.save_model(path, **logged)
    with mlflow.start_run():
        mlflow.pyfunc.log_model(name="model", registered_model_name=name, **logged)


def _requirements() -> list[str]:
    from tests.models import zoo

    return zoo.requirements()
