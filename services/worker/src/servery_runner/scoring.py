"""Answer one request exactly as ``mlflow models serve`` of this environment's MLflow would.

The work is done by MLflow's own ``scoring_server.invocations``; a stand-in for the model notes when
``predict`` began and ended, which splits the time into decode, predict and encode without touching
anything private.
"""

from __future__ import annotations

import importlib.util
import json
import time
import traceback
from typing import Any, Callable, NamedTuple, Optional, Union

UNEXPECTED = (
    "Encountered an unexpected error while evaluating the model. Verify that the serialized input"
    " Dataframe is compatible with the model for inference."
)


class Answer(NamedTuple):
    """Status, content type, body, and ``{stage: (start, end)}`` in epoch nanoseconds."""

    status: int
    content_type: str
    body: bytes
    timings: dict[str, tuple[int, int]]


class Scorer:
    """A loaded model behind MLflow's request and answer format."""

    def __init__(self, model: Any) -> None:
        from mlflow.exceptions import MlflowException
        from mlflow.pyfunc import scoring_server

        self.model = model
        self._mlflow_exception = MlflowException
        self._invocations: Callable[..., Any] = scoring_server.invocations
        self._input_schema = model.metadata.get_input_schema()
        # Servers on FastAPI hand over the body as bytes, those on Flask as text; error messages quote it.
        self._takes_bytes = importlib.util.find_spec("mlflow.pyfunc.scoring_server.app") is not None

    def answer(self, body: bytes, content_type: str) -> Answer:
        """Never raises: whatever goes wrong is the answer."""
        model = _TimedModel(self.model)
        started = time.time_ns()
        try:
            data = _decoded(body, content_type, self._takes_bytes)
            result = self._invocations(data, content_type, model, self._input_schema)
            status, mimetype, text = result.status, result.mimetype, result.response
        except self._mlflow_exception as error:
            status, mimetype = error.get_http_status_code(), "application/json"
            text = error.serialize_as_json()
        except BaseException as error:
            # Includes SystemExit: a model that calls sys.exit() fails its request, not its replica.
            status, mimetype = 400, "application/json"
            text = _error_body(model, error)
        return Answer(status, mimetype, text.encode(), model.timings(started, time.time_ns()))


class _TimedModel:
    """Stands in for the model during one request and notes when it predicted."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.metadata = model.metadata
        self.started: Optional[int] = None
        self.ended: Optional[int] = None
        self.predicted = False

    def predict(self, data: Any, params: Optional[dict[str, Any]] = None) -> Any:
        self.started = time.time_ns()
        try:
            prediction = self._model.predict(data, params=params)
        finally:
            self.ended = time.time_ns()
        self.predicted = True
        return prediction

    def timings(self, started: int, ended: int) -> dict[str, tuple[int, int]]:
        if self.started is None or self.ended is None:
            return {"decode": (started, ended)}
        return {
            "decode": (started, self.started),
            "predict": (self.started, self.ended),
            "encode": (self.ended, ended),
        }


def _decoded(body: bytes, content_type: str, takes_bytes: bool) -> Union[bytes, str]:
    """What this MLflow's own server would pass on for the body."""
    mime_type = content_type.split(";", 1)[0].strip()
    # Some releases on FastAPI cannot read CSV from bytes, and all read it from text.
    if mime_type != "text/csv" and (takes_bytes or "parquet" in mime_type):
        return body
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return body


def _error_body(model: _TimedModel, error: BaseException) -> str:
    problem = "".join(traceback.format_exception_only(type(error), error)).strip()
    if model.predicted:
        message = f"The model's prediction cannot be sent as JSON: {problem}"
    elif model.started is not None:
        message = UNEXPECTED
    else:
        message = f"The request cannot be read: {problem}"
    stack = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return json.dumps({"error_code": "BAD_REQUEST", "message": message, "stack_trace": stack})
