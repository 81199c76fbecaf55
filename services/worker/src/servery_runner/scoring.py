"""Answer one request exactly as ``mlflow models serve`` of this environment's MLflow would.

The work is done by MLflow's own ``scoring_server.invocations``; a stand-in for the model notes when
``predict`` began and ended, which splits the time into decode, predict and encode without touching
anything private. For a streamed answer the stand-in calls ``predict_stream`` and keeps what it returned: MLflow's
server does not stream, but its reading of bodies and its errors are the same.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import time
import traceback
from io import StringIO
from typing import Any, Callable, Generator, Iterator, NamedTuple, Optional, Union

from servery_common.contracts import frames
from servery_runner import enforcement, limits, request_body, rows, streaming, tables
from servery_runner.rows import Rows
from servery_runner.tables import Table

JSON = "application/json"
Body = Union[bytes, bytearray]

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
    """A loaded model behind MLflow's request and answer format. A longer answer than ``answer_bytes`` is an error."""

    def __init__(self, model: Any, answer_bytes: int) -> None:
        from mlflow.exceptions import MlflowException
        from mlflow.pyfunc import scoring_server

        self.model = model
        self._answer_bytes = answer_bytes
        self._mlflow_exception = MlflowException
        self._invocations: Callable[..., Any] = scoring_server.invocations
        self._input_schema = model.metadata.get_input_schema()
        # Servers on FastAPI hand over the body as bytes, those on Flask as text; error messages quote it.
        self._takes_bytes = importlib.util.find_spec("mlflow.pyfunc.scoring_server.app") is not None
        self._write_item = getattr(scoring_server, "unwrapped_predictions_to_json", json.dump)
        self.declared = request_body.declared_names(model.metadata)
        """Names in the model's signature; None without one."""
        flavor = (getattr(model.metadata, "flavors", None) or {}).get("python_function") or {}
        self.has_own_code = flavor.get("loader_module") == "mlflow.pyfunc.model"
        """It was logged as code (PythonModel), which may do anything, and not by a library's flavor."""
        self._floats, self.dates = _number_columns(self._input_schema)
        """``dates``: its signature has some, so no bodies of this model are read as rows."""
        self._write_answer: Any = getattr(scoring_server, "predictions_to_json", None)
        self._tables = (
            None if self._write_answer is None else tables.of_signature(self._input_schema, self._decode)
        )

    def answer(self, body: Body, content_type: str, part: Optional[Rows] = None) -> Answer:
        """Never raises: whatever goes wrong is the answer. ``part``: the body's rows, if they were read already."""
        started = time.time_ns()
        if self._tables is not None and content_type == JSON and b'"dataframe_' in body:
            part = self.read_rows(body) if part is None else part
            table = None if part is None else self._tables.of([part])
            if table is not None:
                return self._score_table(table, lambda: body, started)
        return self._score(_TimedModel(self.model), body, content_type)

    def answer_together(self, parts: list[Rows]) -> Answer:
        """The answer to the rows of several bodies of one kind. Never raises."""
        started = time.time_ns()
        table = None if self._tables is None else self._tables.of(parts)
        if table is None:
            return self._score(_TimedModel(self.model), rows.join(parts), JSON)
        return self._score_table(table, lambda: rows.join(parts), started)

    def stream(self, body: Body, content_type: str) -> Union[Answer, AnswerStream]:
        """Begin to stream, the first item computed; an Answer when that failed. Never raises."""
        if not streaming.can_stream(self.model):
            return _cannot_stream()
        model = _StreamedModel(self.model)
        answer = self._score(model, body, content_type)
        if model.unimplemented:
            return _cannot_stream()
        return AnswerStream(model, self) if model.items is not None else answer

    def score_json(self, body: Body) -> tuple[int, str]:
        """Status and body of the answer to a JSON body. Never raises."""
        answer = self.answer(body, JSON)
        return answer.status, answer.body.decode()

    def read_rows(self, body: Body) -> Optional[Rows]:
        """The rows of a JSON body, as this model takes them; None when it has to be predicted by itself."""
        return rows.read(body, self._floats, self.dates)

    def event(self, item: Any) -> bytes:
        """One item of a streamed answer. Raises what writing it as JSON raises."""
        return streaming.event(item, self._write_item)

    def broken_off(self, model: _TimedModel, error: BaseException) -> tuple[int, bytes]:
        """Status and body that tell of an error after the first item, as they would before it."""
        if isinstance(error, self._mlflow_exception):
            status, body = error.get_http_status_code(), error.serialize_as_json().encode()
        else:
            status, body = 400, _error_body(model, error).encode()
        if len(body) > frames.CHUNK_BYTES:
            # It travels in one record.
            body = json.dumps({"error_code": "BAD_REQUEST", "message": UNEXPECTED}).encode()
        return status, body

    def _score(self, model: _TimedModel, body: Body, content_type: str) -> Answer:
        return self._answered(model, lambda: self._invoke(model, body, content_type), time.time_ns())

    def _score_table(self, table: Table, body: Callable[[], Body], started: int) -> Answer:
        model = _TimedModel(self.model)
        return self._answered(model, lambda: self._predict_table(model, table, body), started)

    def _invoke(self, model: _TimedModel, body: Body, content_type: str) -> tuple[int, str, bytes]:
        data = _decoded(body, content_type, self._takes_bytes)
        result = self._invocations(data, content_type, model, self._input_schema)
        return result.status, result.mimetype, result.response.encode()

    def _predict_table(
        self, model: _TimedModel, table: Table, body: Callable[[], Body]
    ) -> tuple[int, str, bytes]:
        try:
            with enforcement.sparing(table.frame if table.conforms else None):
                prediction = model.predict(table.frame)
        except BaseException as error:
            # MLflow's server tells of it, as if the model had failed under its hands.
            return self._invoke(_FailedModel(self.model, error), body(), JSON)
        text = StringIO()
        self._write_answer(prediction, text)
        return 200, JSON, text.getvalue().encode()

    def _decode(self, body: Body) -> Any:
        """What MLflow would give the model for a JSON body. The model is not asked."""
        model = _RefusingModel(self.model)
        self._score(model, body, JSON)
        return model.given

    def _answered(
        self, model: _TimedModel, produce: Callable[[], tuple[int, str, bytes]], started: int
    ) -> Answer:
        try:
            status, mimetype, content = produce()
        except self._mlflow_exception as error:
            status, mimetype = error.get_http_status_code(), JSON
            content = error.serialize_as_json().encode()
        except BaseException as error:
            # Includes SystemExit: a model that calls sys.exit() fails its request, not its replica.
            status, mimetype = 400, JSON
            content = _error_body(model, error).encode()
        if len(content) > self._answer_bytes:
            # Here and not in the agent, which would have to take it in first.
            status, mimetype, content = 400, "text/plain", limits.too_long(self._answer_bytes).encode()
        return Answer(status, mimetype, content, model.timings(started, time.time_ns()))


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
        except MemoryError as error:
            raise limits.MemoryExhausted from error
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


class _FailedModel(_TimedModel):
    """Stands in for a model that failed already: fails in the same way, without doing anything."""

    def __init__(self, model: Any, error: BaseException) -> None:
        super().__init__(model)
        self._error = error

    def predict(self, data: Any, params: Optional[dict[str, Any]] = None) -> Any:
        raise self._error


class _RefusingModel(_TimedModel):
    """Stands in for the model to see what it would be given."""

    given: Any = None

    def predict(self, data: Any, params: Optional[dict[str, Any]] = None) -> Any:
        self.given = data
        raise ValueError("This is a look at the data only.")


class _StreamedModel(_TimedModel):
    """Stands in for the model during one streamed request: keeps its items, the first one computed."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.items: Optional[Iterator[Any]] = None
        self.unimplemented = False

    def predict(self, data: Any, params: Optional[dict[str, Any]] = None) -> Any:
        self.started = time.time_ns()
        try:
            items = iter(self._model.predict_stream(data, params=params))
            first = list(itertools.islice(items, 1))
        except NotImplementedError:
            # MLflow's base classes of agents and chat models have a predict_stream that only says so.
            self.unimplemented = True
            raise
        except MemoryError as error:
            raise limits.MemoryExhausted from error
        finally:
            self.ended = time.time_ns()
        self.items = _Resumed(first, items)
        return []


class _Resumed:
    """The items of an iterator whose first one was taken already. Closing it closes the model's generator."""

    def __init__(self, first: list[Any], rest: Iterator[Any]) -> None:
        self._first = first
        self._rest = rest

    def __iter__(self) -> _Resumed:
        return self

    def __next__(self) -> Any:
        return self._first.pop() if self._first else next(self._rest)

    def close(self) -> None:
        close = getattr(self._rest, "close", None)
        if close is not None:
            close()


class AnswerStream:
    """A streamed answer that has begun. Use it in the thread that began it: MLflow's context is the thread's."""

    def __init__(self, model: _StreamedModel, scorer: Scorer) -> None:
        self._model = model
        self._scorer = scorer
        self.error: Optional[tuple[int, bytes]] = None
        """Status and body of what broke the answer off."""

    def events(self) -> Generator[bytes, None, None]:
        """Yield the items as events; ends early with ``error`` set when something goes wrong. Close it when done."""
        items = self._model.items
        try:
            for item in items or ():
                self._model.predicted = True
                event = self._scorer.event(item)
                self._model.predicted = False
                yield event
        except GeneratorExit:
            raise
        except BaseException as error:
            self.error = self._scorer.broken_off(self._model, error)
        finally:
            self._model.ended = time.time_ns()
            _close(items)

    def timings(self) -> dict[str, tuple[int, int]]:
        """As of an Answer, for what has happened by now."""
        started, ended = self._model.started, self._model.ended
        return {} if started is None or ended is None else {"predict": (started, ended)}


def _number_columns(schema: Any) -> tuple[frozenset[str], bool]:
    """Names of the columns that are made floats of, whatever number is sent, and whether there are dates.

    Inputs without names are "" together.
    """
    if schema is None:
        return frozenset(), False
    kinds = [_kind_of(type_) for type_ in schema.input_types()]
    if schema.has_input_names():
        floats = {name for name, kind in zip(schema.input_names(), kinds) if kind == "float"}
    else:
        floats = {""} if set(kinds) == {"float"} else set()
    return frozenset(floats), "date" in kinds


def _kind_of(type_: Any) -> str:
    name = str(getattr(type_, "name", type_))
    if name == "datetime" or name.startswith("datetime64"):
        return "date"
    return "float" if name in ("double", "float", "float32", "float64") else "other"


def _close(items: Any) -> None:
    try:
        items.close()
    except BaseException:
        # The model's own cleaning up failed; its answer is over all the same, and its log should say why.
        traceback.print_exc()


def out_of_memory(error: MemoryError) -> Answer:
    """The answer to a request that cannot be answered otherwise because of this."""
    problem = {"error_code": "BAD_REQUEST", "message": limits.out_of_memory(error)}
    return Answer(400, JSON, json.dumps(problem).encode(), {})


def unreadable(error: Exception) -> Answer:
    """The answer to a request whose body made reading it fail."""
    problem = {
        "error_code": "BAD_REQUEST",
        "message": f"The request cannot be read: {type(error).__name__}: {error}",
    }
    return Answer(400, JSON, json.dumps(problem).encode(), {})


def _cannot_stream() -> Answer:
    error = {"error_code": "BAD_REQUEST", "message": streaming.CANNOT_STREAM}
    return Answer(400, JSON, json.dumps(error).encode(), {})


def _decoded(body: Body, content_type: str, takes_bytes: bool) -> Union[bytes, str]:
    """What this MLflow's own server would pass on for the body."""
    mime_type = content_type.split(";", 1)[0].strip()
    # Some releases on FastAPI cannot read CSV from bytes, and all read it from text.
    if mime_type != "text/csv" and (takes_bytes or "parquet" in mime_type):
        return bytes(body)
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return bytes(body)


def _error_body(model: _TimedModel, error: BaseException) -> str:
    problem = "".join(traceback.format_exception_only(type(error), error)).strip()
    if limits.is_memory(error):
        message = limits.out_of_memory(error)
    elif model.predicted:
        message = f"The model's prediction cannot be sent as JSON: {problem}"
    elif model.started is not None:
        message = UNEXPECTED
    else:
        message = f"The request cannot be read: {problem}"
    stack = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return json.dumps({"error_code": "BAD_REQUEST", "message": message, "stack_trace": stack})
