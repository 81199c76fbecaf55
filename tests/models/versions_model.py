"""A model from code that says which packages it runs on. It names its own, older requirements.

It fits an estimator when it is loaded, so that the model's own scikit-learn and NumPy really compute.
"""

from __future__ import annotations

import mlflow
import numpy as np
import pandas as pd
import sklearn
from sklearn.linear_model import LinearRegression

REQUIREMENTS = ["mlflow==2.22.4", "scikit-learn==1.5.2", "numpy==1.26.4", "pandas==2.2.3"]


class Versions(mlflow.pyfunc.PythonModel):
    """Answers twice ``x``, learned on the spot, and the versions it was computed with."""

    def load_context(self, context):
        x = np.arange(4.0).reshape(-1, 1)
        self.double = LinearRegression().fit(x, 2 * x.ravel())

    def predict(self, context, model_input):
        return pd.DataFrame(
            {
                "twice": self.double.predict(model_input[["x"]].to_numpy()).round(6),
                "mlflow": mlflow.__version__,
                "scikit-learn": sklearn.__version__,
                "numpy": np.__version__,
                "pandas": pd.__version__,
            }
        )


mlflow.models.set_model(Versions())
