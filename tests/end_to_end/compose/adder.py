"""The model of the compose tests, logged as code: adds its version's number, and eats memory or prints when told to."""

from typing import Any

import mlflow
import pandas as pd


class Adder(mlflow.pyfunc.PythonModel):
    """``x`` of -1 takes memory without end, -2 prints a line."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> list[float]:
        number = context.model_config["number"]
        value = float(model_input["x"].iloc[0])
        if value == -1:
            held = []
            while True:
                held.append(bytearray(64 * 1024 * 1024))
        if value == -2:
            print("the model was here", flush=True)
        return [float(x) + number for x in model_input["x"]]


mlflow.models.set_model(Adder())
