"""Load the model and, when asked to verify it, predict the example it was logged with."""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path
from typing import Any, Optional

from servery_runner import limits
from servery_runner.scoring import Scorer

SERVING_MARKERS = {"_MLFLOW_IS_IN_SERVING_ENVIRONMENT": "true"}
"""Environment variables by which MLflow can tell that it serves. Databricks' come with the order to load."""

LONGEST_ERROR = 2_000
LONGEST_TRACEBACK = 8_000
"""Characters. A record's head holds 65,535 bytes and JSON spends up to 6 on a character."""


class LoadFailure(Exception):
    """The model cannot serve; ``stage`` is import, load or predict."""

    def __init__(self, stage: str, error: str, trace: str = "") -> None:
        super().__init__(error)
        self.stage = stage
        self.error = error
        self.trace = trace

    def head(self) -> dict[str, str]:
        """As the head of a FAILED record."""
        return {
            "stage": self.stage,
            "error": self.error[:LONGEST_ERROR],
            "traceback": self.trace[-LONGEST_TRACEBACK:],
        }


def load(model_path: str, answer_bytes: int) -> Scorer:
    """Import MLflow and load the model, which may answer so many bytes. Raises LoadFailure."""
    os.environ.update(SERVING_MARKERS)
    try:
        import mlflow
        import mlflow.pyfunc
        from mlflow.pyfunc import scoring_server
    except ModuleNotFoundError as error:
        if error.name == "mlflow":
            raise LoadFailure(
                "import", "The model's environment does not contain MLflow; add mlflow to its requirements."
            ) from error
        raise _failure("import", error) from error
    except BaseException as error:
        raise _failure("import", error) from error
    if not hasattr(scoring_server, "invocations"):
        raise LoadFailure(
            "import",
            f"The model's environment contains MLflow {mlflow.__version__}; Servery needs MLflow 2.9 or newer. "
            "Log the model again with a newer MLflow.",
        )
    try:
        # Suppressed with the warnings: MLflow's comparison of the model's requirements with what is installed,
        # which takes a second. The environment was made from these requirements.
        return Scorer(mlflow.pyfunc.load_model(model_path, suppress_warnings=True), answer_bytes)
    except BaseException as error:
        missing = _import_error(error)
        if missing is not None:
            raise _failure("import", missing) from error
        raise _failure("load", error) from error


def predict_example(scorer: Scorer, model_path: str) -> bool:
    """Predict the logged input example; False when there is none. Raises LoadFailure (predict)."""
    try:
        serving_input = _serving_input(scorer.model.metadata, model_path)
        if serving_input is None:
            example = scorer.model.metadata.load_input_example(model_path)
            if example is None:
                return False
            # Models logged before MLflow kept a serving example: the example as it was given.
            scorer.model.predict(example)
            return True
    except BaseException as error:
        raise _failure("predict", error) from error
    answer = scorer.answer(serving_input, "application/json")
    if answer.status != 200:
        raise _failed_answer(answer.body.decode())
    return True


def _serving_input(metadata: Any, model_path: str) -> Optional[bytes]:
    """The example as a request body, which MLflow 2.16 and newer save beside it."""
    information = getattr(metadata, "saved_input_example_info", None) or {}
    name = information.get("serving_input_path")
    if not name:
        return None
    return Path(model_path, name).read_bytes()


def _import_error(error: Optional[BaseException]) -> Optional[ImportError]:
    """The import that failed behind an error: MLflow wraps what a model's own code raises."""
    while error is not None:
        if isinstance(error, ImportError):
            return error
        error = error.__cause__
    return None


def _failure(stage: str, error: BaseException) -> LoadFailure:
    if limits.is_memory(error):
        line = limits.out_of_memory(error)
    else:
        line = traceback.format_exception_only(type(error), error)[-1].strip()
    return LoadFailure(
        stage, line, "".join(traceback.format_exception(type(error), error, error.__traceback__))
    )


def _failed_answer(body: str) -> LoadFailure:
    try:
        parsed = json.loads(body)
    except ValueError:
        return LoadFailure("predict", body)
    trace = parsed.get("stack_trace") or ""
    cause = trace.strip().rsplit("\n", 1)[-1]
    return LoadFailure("predict", cause or parsed.get("message", body), trace)
